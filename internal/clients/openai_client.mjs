// The official JavaScript client of OpenAI.
import OpenAI from "openai";
import { about, ask, collected, count, key, read, run, short, streamed, url, weather } from "./cases.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather of a city", parameters: weather } }];

const chat = (messages, more = {}, on = client) =>
  on.chat.completions.create({ model: "small", messages, temperature: 0, max_tokens: short, ...more });
// items is the conversation as the responses API has it.
const kind = { user: "input_text", assistant: "output_text" };
const items = (messages) =>
  messages.map(({ role, content }) => ({ type: "message", role, content: [{ type: kind[role], text: content }] }));
const respond = (more = {}) =>
  client.responses.create({ model: "small", input: items(count), temperature: 0, max_output_tokens: short, ...more });

const callIn = (message) => {
  const { name, arguments: given } = message.tool_calls[0].function;
  return { name, arguments: JSON.parse(given) };
};

async function streamedCall(stream) {
  let name = "", given = "";
  for await (const chunk of stream) {
    for (const call of chunk.choices[0]?.delta.tool_calls ?? []) {
      name += call.function.name ?? "";
      given += call.function.arguments ?? "";
    }
  }
  return { name, arguments: JSON.parse(given) };
}

const shared = async (messages, more, told) => {
  const { data, response } = await chat(messages, more).withResponse();
  return { did: response.headers.get("x-semsharekv"), ...(await told(data)) };
};

await run({
  shared: () => shared(read, {}, (a) => ({ text: a.choices[0].message.content })),
  shared_tool_call_stream: () => shared(about, { tools, max_tokens: 64, stream: true }, streamedCall),
  chat: async () => {
    const { choices: [c], usage } = await chat(count);
    return { text: c.message.content, finish: c.finish_reason, usage: [usage.prompt_tokens, usage.completion_tokens] };
  },
  chat_stream: async () => streamed((await collected(await chat(count, { stream: true }))).map((c) => c.choices[0]?.delta.content)),
  left_early: async () => {
    for await (const _ of await chat(count, { stream: true, max_tokens: 1000 })) break;
    return (await chat(count)).choices[0].message.content;
  },
  several_at_once: async () => (await Promise.all([1, 2, 3, 4].map(() => chat(count)))).map((a) => a.choices[0].message.content),
  tool_call: async () => callIn((await chat(ask, { tools, max_tokens: 64 })).choices[0].message),
  tool_call_stream: async () => streamedCall(await chat(ask, { tools, max_tokens: 64, stream: true })),
  responses: async () => (await respond()).output_text,
  responses_stream: async () =>
    streamed((await collected(await respond({ stream: true }))).filter((e) => e.type === "response.output_text.delta").map((e) => e.delta)),
  bad_request: () => chat("not a list of messages"),
  wrong_key: () => chat(count, {}, client.withOptions({ apiKey: "wrong" })),
});
