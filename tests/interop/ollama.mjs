// Ollama's client for JavaScript; prints what it got as JSON.
import { Ollama } from "ollama";

const ollama = new Ollama({ host: process.argv[2] });
const format = JSON.parse(process.argv[3]);
const { model } = (await ollama.list()).models[0];
const asked = { model, messages: [{ role: "user", content: "Is 2 + 2 = 4?" }], options: { temperature: 0, num_predict: 60 } };
const chat = await ollama.chat({ ...asked, format });
let streamed = "";
for await (const part of await ollama.chat({ ...asked, format, stream: true })) streamed += part.message.content;
const generated = await ollama.generate({ model, prompt: "Is 2 + 2 = 4?", format, options: asked.options });
const text = await ollama.chat(asked);
console.log(JSON.stringify({ chat: chat.message.content, streamed, generated: generated.response, text: text.message.content }));
