// The TypeScript SDK's OAuth client: typescript_authentication.mjs NODE_MODULES ISSUER RESOURCE CALLBACK METADATA [KEY]
//
// It registers with METADATA, prints where a person is to go, reads the code from standard input, exchanges it,
// refreshes, and prints what it was given. With KEY, a private one in PEM, it signs.

import { createRequire } from "node:module";
import { createInterface } from "node:readline/promises";

const [modules, issuer, resourceText, redirectUrl, metadataText, privateKey] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const sdk = load("@modelcontextprotocol/sdk/client/auth.js");
const { createPrivateKeyJwtAuth } = load("@modelcontextprotocol/sdk/client/auth-extensions.js");

const resource = new URL(resourceText);
const metadata = await sdk.discoverAuthorizationServerMetadata(issuer);
const clientMetadata = { client_name: "TypeScript", redirect_uris: [redirectUrl], ...JSON.parse(metadataText) };
const clientInformation = await sdk.registerClient(issuer, { metadata, clientMetadata });
const id = clientInformation.client_id;
const signing = privateKey && { issuer: id, subject: id, privateKey, alg: "RS256" };
const addClientAuthentication = signing ? createPrivateKeyJwtAuth(signing) : undefined;
const with_ = { metadata, clientInformation, resource, addClientAuthentication };

const { authorizationUrl, codeVerifier } = await sdk.startAuthorization(issuer, { ...with_, redirectUrl });
process.stdout.write(`${authorizationUrl}\n`);
const authorizationCode = await createInterface({ input: process.stdin }).question("");
const asked = { ...with_, authorizationCode, codeVerifier, redirectUri: redirectUrl };
const first = await sdk.exchangeAuthorization(issuer, asked);
const second = await sdk.refreshAuthorization(issuer, { ...with_, refreshToken: first.refresh_token });
process.stdout.write(`${JSON.stringify({ clientInformation, first, second })}\n`);
process.exit(0);
