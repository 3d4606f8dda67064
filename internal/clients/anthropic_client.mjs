// The official JavaScript client of Anthropic.
import Anthropic from "@anthropic-ai/sdk";
import { about, ask, count, key, read, run, short, streamed, url, weather } from "./cases.mjs";

const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const tools = [{ name: "get_weather", description: "The weather of a city", input_schema: weather }];

const body = (messages, more = {}) => ({ model: "small", messages, max_tokens: short, temperature: 0, ...more });
const told = (message) => ({
  text: message.content.filter((b) => b.type === "text").map((b) => b.text).join(""),
  calls: message.content.filter((b) => b.type === "tool_use").map((b) => [b.name, b.input]),
  stop: message.stop_reason,
});

await run({
  shared: async () => {
    const { data, response } = await client.messages.create(body(read)).withResponse();
    return { did: response.headers.get("x-semsharekv"), text: told(data).text };
  },
  shared_tool_call_stream: async () => {
    const stream = client.messages.stream(body(about, { tools, max_tokens: 64 }));
    const { response } = await stream.withResponse();
    return { did: response.headers.get("x-semsharekv"), calls: told(await stream.finalMessage()).calls };
  },
  message: async () => told(await client.messages.create(body(count))),
  stream: async () => {
    const pieces = [];
    await client.messages.stream(body(count)).on("text", (t) => pieces.push(t)).finalMessage();
    return streamed(pieces);
  },
  tool_call: async () => told(await client.messages.create(body(ask, { tools, max_tokens: 64 }))),
  bad_request: () => client.messages.create(body(count, { max_tokens: "many" })),
  wrong_key: () => client.withOptions({ apiKey: "wrong" }).messages.create(body(count)),
});
