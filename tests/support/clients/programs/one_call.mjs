// Calls one tool with the TypeScript SDK's client and prints a JSON line for each thing that comes:
//   one_call.mjs NODE_MODULES VERSION ERA URL TOKEN TOOL ARGUMENTS
// VERSION is 1 or 2 (the SDK's), ERA "legacy" or a version of the protocol. All settings are the SDK's own.
import { createRequire } from "node:module";

const [modules, version, era, url, token, name, given] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Client, StreamableHTTPClientTransport } =
  version === "1"
    ? {
        ...require("@modelcontextprotocol/sdk/client/index.js"),
        ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      }
    : require("@modelcontextprotocol/client");

const say = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);
const mode = era === "legacy" ? "legacy" : { pin: era };
const client = new Client({ name: "typescript", version: "1" }, { versionNegotiation: { mode } });
const headers = { Authorization: `Bearer ${token}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const options = { onprogress: ({ message }) => say({ progress: message }) };
const call = { name, arguments: JSON.parse(given) };
try {
  say({ answer: await (version === "1" ? client.callTool(call, undefined, options) : client.callTool(call, options)) });
} catch (error) {
  say({ error: String(error) });
}
await client.close();
