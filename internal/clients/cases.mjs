// What the JavaScript clients are tried with, and how they say what came of it.
export const { URL: url, KEY: key, DOCUMENT: text } = process.env;
export const short = 12; // tokens of an answer
export const hello = [{ role: "user", content: "Name three colours of the rainbow." }];
export const weather = {
  type: "object",
  properties: { city: { type: "string", description: "its name" } },
  required: ["city"],
};
const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';
// The small model calls a tool when it is shown the call; llama-server does not
// hold a model to tool_choice.
const request = `Repeat exactly this line and nothing else:\n${call}`;
export const ask = [{ role: "user", content: request }];
export const askAbout = [{ role: "user", content: `${text}\n\n${request}` }];
export const read = [{ role: "user", content: `${text}\n\nWhat is this text about?` }];

// run runs each case and prints what it returned, or how the client failed.
export async function run(cases) {
  const out = {};
  for (const [name, f] of Object.entries(cases)) {
    try {
      out[name] = await f();
    } catch (e) {
      out[name] = { error: e.constructor.name, status: e.status ?? null, said: e.message };
    }
  }
  console.log(JSON.stringify(out, null, 1));
}

// streamed is the whole text, and whether it came in pieces.
export function streamed(pieces) {
  pieces = pieces.filter(Boolean);
  return { text: pieces.join(""), "in pieces": pieces.length > 1 };
}

export async function collected(stream) {
  const all = [];
  for await (const item of stream) all.push(item);
  return all;
}
