// stdio_server.py, for node-runtime.
const lines = require("node:readline").createInterface({ input: process.stdin });
const answers = {
  initialize: () => ({
    protocolVersion: "2025-06-18",
    capabilities: { tools: {} },
    serverInfo: { name: "stdio-server", version: "1.2.0" },
  }),
  "tools/list": () => ({ tools: [{ name: "whoami", inputSchema: { type: "object" } }] }),
  "tools/call": () => {
    const words = [...process.argv.slice(2), process.env.WHO ?? ""];
    return { content: [{ type: "text", text: JSON.stringify(words) }] };
  },
};
lines.on("line", (line) => {
  const { id, method } = JSON.parse(line);
  if (id === undefined) return;
  const known = answers[method];
  const body = known ? { result: known() } : { error: { code: -32601, message: "no such method" } };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...body }) + "\n");
});
