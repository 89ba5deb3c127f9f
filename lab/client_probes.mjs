// One client for JavaScript: see client_probes.py. `node client_probes.mjs CLIENT URL MODEL`, copied to the client's folder.
const [, , name, url, model] = process.argv;
const load = (what) => import(what);
const { z } = await load("zod");

const QUESTION = "What is the capital of France? Answer in one short sentence.";
const NEED = "Use the tool weather to find the weather in Oslo.";
const TOKENS = 200;
const City = z.object({ city: z.string() });
const Typed = z.object({ city: z.string(), founded: z.number().int(), site: z.url() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const TOOL = { type: "function", function: { name: "weather", description: "The weather of a city.", parameters } };
const said = (content) => [{ role: "user", content }];
const called = (run) => async () => {
    const cities = [];
    await run(({ city }) => {
        cities.push(city);
        return `Rain in ${city}, 7 degrees.`;
    });
    return cities.join();
};

async function openai() {
    const { default: OpenAI } = await load("openai");
    const { zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused" });
    const common = { model, temperature: 0, max_tokens: TOKENS };
    const create = (fields) => client.chat.completions.create({ ...common, messages: said(QUESTION), ...fields });
    return {
        chat: async () => (await create({})).choices[0].message.content,
        stream: async () => {
            let text = "";
            for await (const part of await create({ stream: true })) text += part.choices[0]?.delta.content ?? "";
            return text;
        },
        tools: called(async (weather) => {
            const run = async (fields) => (await create(fields)).choices[0].message;
            const message = await run({ messages: said(NEED), tools: [TOOL], tool_choice: "required" });
            const [call] = message.tool_calls;
            const content = weather(JSON.parse(call.function.arguments));
            await run({ messages: [...said(NEED), message, { role: "tool", tool_call_id: call.id, content }], tools: [TOOL] });
        }),
        schema: async () => {
            const fields = { ...common, messages: said(QUESTION), response_format: zodResponseFormat(Typed, "city") };
            return (await client.chat.completions.parse(fields)).choices[0].message.parsed.city;
        },
        responses: async () => {
            const format = zodTextFormat(City, "city");
            return (await client.responses.parse({ model, input: QUESTION, text: { format } })).output_parsed.city;
        },
    };
}

async function ollama() {
    const { Ollama } = await load("ollama");
    const client = new Ollama({ host: url });
    const chat = (fields) => client.chat({ model, messages: said(QUESTION), options: { temperature: 0, num_predict: TOKENS }, ...fields });
    return {
        chat: async () => (await chat({})).message.content,
        stream: async () => {
            let text = "";
            for await (const part of await chat({ stream: true })) text += part.message.content;
            return text;
        },
        tools: async () => (await chat({ messages: said(NEED), tools: [TOOL] })).message.tool_calls[0].function.arguments.city,
        schema: async () => Typed.parse(JSON.parse((await chat({ format: z.toJSONSchema(Typed) })).message.content)).city,
        generate: async () => (await client.generate({ model, prompt: QUESTION })).response,
        list: async () => (await client.list()).models[0].model,
    };
}

async function vercel(provided) {
    const { generateText, streamText, tool, Output, stepCountIs } = await load("ai");
    const common = { model: provided, temperature: 0, maxOutputTokens: TOKENS, maxRetries: 0, prompt: QUESTION };
    return {
        chat: async () => (await generateText(common)).text,
        stream: async () => {
            let text = "";
            const onError = ({ error }) => {
                throw error;
            };
            for await (const part of streamText({ ...common, onError }).textStream) text += part;
            return text;
        },
        tools: called((execute) => {
            const weather = tool({ description: "The weather of a city.", inputSchema: City, execute });
            return generateText({ ...common, prompt: NEED, tools: { weather }, toolChoice: "required", stopWhen: stepCountIs(1) });
        }),
        schema: async () => (await generateText({ ...common, output: Output.object({ schema: Typed }) })).output.city,
    };
}

async function ai_openai() {
    const { createOpenAI } = await load("@ai-sdk/openai");
    const provider = createOpenAI({ baseURL: `${url}/v1`, apiKey: "unused" });
    const chat = await vercel(provider.chat(model));
    const responses = await vercel(provider(model));
    return { ...chat, responses: responses.stream, "schema by responses": responses.schema };
}

async function ai_compatible() {
    const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
    const options = { name: "thirteen", baseURL: `${url}/v1`, supportsStructuredOutputs: true };
    return vercel(createOpenAICompatible(options)(model));
}

async function langchain(chat) {
    const { tool } = await load("@langchain/core/tools");
    const stream = async () => {
        let text = "";
        for await (const part of await chat.stream(QUESTION)) text += part.text;
        return text;
    };
    return {
        chat: async () => (await chat.invoke(QUESTION)).text,
        stream,
        tools: called(async (weather) => {
            const made = tool(weather, { name: "weather", description: "The weather of a city.", schema: City });
            const { tool_calls } = await chat.bindTools([made]).invoke(NEED);
            await made.invoke(tool_calls[0].args);
        }),
        schema: async () => (await chat.withStructuredOutput(City, { method: "jsonSchema" }).invoke(QUESTION)).city,
    };
}

async function langchain_openai() {
    const { ChatOpenAI } = await load("@langchain/openai");
    const given = { model, apiKey: "unused", configuration: { baseURL: `${url}/v1` } };
    const responses = await langchain(new ChatOpenAI({ ...given, useResponsesApi: true }));
    return { ...(await langchain(new ChatOpenAI({ ...given, temperature: 0, maxTokens: TOKENS }))), responses: responses.stream };
}

async function langchain_ollama() {
    const { ChatOllama } = await load("@langchain/ollama");
    return langchain(new ChatOllama({ model, baseUrl: url, temperature: 0, numPredict: TOKENS }));
}

async function agents() {
    const { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, run, setTracingDisabled, tool } = await load("@openai/agents");
    const { default: OpenAI } = await load("openai");
    setTracingDisabled(true);
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused" });
    const modelSettings = { temperature: 0, maxTokens: TOKENS };
    const agent = (options = {}, Model = OpenAIResponsesModel) =>
        new Agent({ name: "agent", instructions: "Be brief.", model: new Model(client, model), modelSettings, ...options });
    return {
        chat: async () => (await run(agent(), QUESTION)).finalOutput,
        stream: async () => {
            const result = await run(agent(), QUESTION, { stream: true });
            let text = "";
            for await (const part of result.toTextStream()) text += part;
            return text;
        },
        tools: called((execute) => {
            const tools = [tool({ name: "weather", description: "The weather of a city.", parameters: City, execute })];
            return run(agent({ tools }), NEED);
        }),
        schema: async () => (await run(agent({ outputType: City }), QUESTION)).finalOutput.city,
        "chat completions": async () => (await run(agent({}, OpenAIChatCompletionsModel), QUESTION)).finalOutput,
    };
}

const clients = { openai, ollama, ai_openai, ai_compatible, langchain_openai, langchain_ollama, agents };
const found = {};
for (const [what, probe] of Object.entries(await clients[name]())) {
    try {
        found[what] = { got: String((await probe()) ?? "") };
    } catch (error) {
        found[what] = { error: `${error.name}: ${error.message} ${error.text ?? ""}` };
    }
}
console.log(`\n${JSON.stringify(found)}`);
process.exit(0);
