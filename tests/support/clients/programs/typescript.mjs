// A chat client on the TypeScript SDK, 1.x or 2.x: typescript.mjs NODE_MODULES GENERATION URL NAME
//
// It speaks the lines of `lines.py`, and connects anew for each.

import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, generation, url, name] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const sdk =
  generation === "1"
    ? {
        ...load("@modelcontextprotocol/sdk/client/index.js"),
        ...load("@modelcontextprotocol/sdk/client/streamableHttp.js"),
        ...load("@modelcontextprotocol/sdk/client/auth.js"),
      }
    : load("@modelcontextprotocol/client");

const say = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);

// Where the person's browser comes back to.
let came;
const returning = createServer((request, response) => {
  response.end("You may close this window.");
  came(new URL(request.url, "http://localhost").searchParams);
});
await new Promise((listening) => returning.listen(0, "127.0.0.1", listening));
const callback = `http://127.0.0.1:${returning.address().port}/callback`;

const kept = {};
const provider = {
  get redirectUrl() {
    return callback;
  },
  get clientMetadata() {
    return { client_name: name, redirect_uris: [callback], token_endpoint_auth_method: "none" };
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (discovery) => void (kept.discovery = discovery),
  invalidateCredentials(scope) {
    for (const what of scope === "all" ? ["client", "tokens", "verifier", "discovery"] : [scope]) delete kept[what];
  },
  redirectToAuthorization(address) {
    kept.brought = new Promise((resolve) => (came = resolve));
    execFileSync(process.env.BROWSER, [String(address)]);
  },
};

async function connected(use) {
  const era = generation === "1" ? {} : { versionNegotiation: { mode: "auto" } };
  for (const attempt of [1, 2]) {
    const client = new sdk.Client({ name, version: "1" }, era);
    const transport = new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
    try {
      await client.connect(transport);
      return await use(client);
    } catch (error) {
      if (!(error instanceof sdk.UnauthorizedError) || attempt === 2) throw error;
      const brought = await kept.brought;
      await transport.finishAuth(generation === "1" ? brought.get("code") : brought);
    } finally {
      await client.close();
    }
  }
}

const answers = {
  tools: () => connected(async (client) => (await client.listTools()).tools.map((tool) => tool.name)),
  call: ({ tool, arguments: given }) =>
    connected(async (client) => {
      const options = { onprogress: ({ progress, total, message }) => say({ progress: [progress, total, message] }) };
      const asked = { name: tool, arguments: given };
      const result = await (generation === "1"
        ? client.callTool(asked, undefined, options)
        : client.callTool(asked, options));
      return result.content[0].text;
    }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...rest } = JSON.parse(line);
  try {
    say({ answer: await answers[what](rest) });
  } catch (error) {
    say({ error: `${error.name}: ${error.message}` });
  }
}
process.exit(0);
