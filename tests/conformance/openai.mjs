// The `openai` client of npm against an agent (tests/conformance/agent.py); its URL is the argument.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const OpenAI = createRequire(import.meta.url)("openai").default;
const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const ask = (content, more = {}) => ({
  model: "agent",
  messages: [{ role: "user", content }],
  ...more,
});
const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const tests = {
  async "a whole answer, with a tool of the agent's"() {
    const answer = await client.chat.completions.create(ask("use your tool"));
    assert.equal(answer.choices[0].message.content, "It said: echo: it's \"x\"\n");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.ok(answer.usage.total_tokens > 0);
  },
  async "a stream, with a tool of the agent's"() {
    const stream = await client.chat.completions.create(
      ask("use your tool", { stream: true, stream_options: { include_usage: true } }),
    );
    let text = "";
    let usage = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, "It said: echo: it's \"x\"\n");
    assert.ok(usage.total_tokens > 0);
  },
  async "a tool of the caller's, run by the client"() {
    const asked = [];
    const runner = client.chat.completions.runTools(
      ask("ask me for the weather", {
        tools: [
          {
            type: "function",
            function: {
              ...weather.function,
              parse: JSON.parse,
              function: ({ city }) => {
                asked.push(city);
                return `rain in ${city}`;
              },
            },
          },
        ],
      }),
    );
    assert.equal(await runner.finalContent(), "I see: rain in Ulm");
    assert.deepEqual(asked, ["Ulm"]);
  },
  async "a tool of the caller's in a stream"() {
    const stream = client.chat.completions.stream(
      ask("ask me for the weather", { tools: [weather] }),
    );
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    const call = final.choices[0].message.tool_calls[0];
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Ulm" });
  },
  async "errors are of their classes"() {
    const bad = client.chat.completions.create({ model: "agent", messages: [] });
    await assert.rejects(bad, OpenAI.BadRequestError);
    await assert.rejects(client.chat.completions.create(ask("be busy")), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.match(error.requestID, /^req-/);
      return true;
    });
    await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
  },
  async "an error in the middle of a stream"() {
    const stream = await client.chat.completions.create(ask("break off", { stream: true }));
    await assert.rejects(async () => {
      for await (const _ of stream);
    }, OpenAI.APIError);
  },
  async "the list of models"() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.deepEqual(names, ["agent"]);
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log(`✓ ${name}`);
}
console.log(`Passed: ${Object.keys(tests).length}/${Object.keys(tests).length}`);
