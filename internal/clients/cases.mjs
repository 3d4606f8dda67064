// What the JavaScript clients are tried with, and how they say what came of it.
export const { URL: url, KEY: key, DOCUMENT: text } = process.env;
export const short = 16; // tokens of an answer
export const weather = {
  type: "object",
  properties: { city: { type: "string", description: "its name" } },
  required: ["city"],
};
const call = (city) => `<tool_call>\n{"name": "get_weather", "arguments": {"city": "${city}"}}\n</tool_call>`;
// turns is a conversation that begins with the user.
const turns = (...texts) => texts.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
// The small model goes on as it was shown: see cases.py.
export const count = turns("Count from 1 to 4.", "1, 2, 3, 4", "Count from 1 to 6.", "1, 2, 3, 4, 5, 6", "Count from 1 to 8.");
export const ask = turns("Weather in Rome?", call("Rome"), "Weather in Madrid?", call("Madrid"), "Weather in Paris?");
export const about = [{ role: "user", content: `${text}\n\nWeather in Rome?` }, ...ask.slice(1)];
export const read = turns(`${text}\n\nWhat is this text about?`);

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
