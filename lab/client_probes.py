"""One client in its own environment: a chat, a stream, a tool's call and an answer to a schema.

`lab/client_table.py` runs it as `python client_probes.py CLIENT URL MODEL`. It needs nothing of this project.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module as load
from typing import Any

QUESTION = "What is the capital of France? Answer in one short sentence."
NEED = "Use the tool weather to find the weather in Oslo."
FIELDS = {"city": {"type": "string"}}
CITY = {"type": "object", "properties": FIELDS, "required": ["city"], "additionalProperties": False}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city.", "parameters": CITY},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
TOKENS = 200

Probe = Callable[[], Any]
Probes = Mapping[str, Probe]  # what is tried: a text to find, or a call's city


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: name of the city.
    """
    CALLED.append(city)
    return f"Rain in {city}, 7 degrees."


CALLED: list[str] = []


def called(run: Probe) -> Probe:
    """The arguments with which a client's own loop calls the tool, after it ended."""

    def probe() -> Any:
        CALLED.clear()
        run()
        return ", ".join(CALLED)

    return probe


def said(text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def model_of_city() -> Any:
    """A pydantic model of the schema."""
    return load("pydantic").create_model("City", city=(str, ...))


def openai(url: str, model: str) -> Probes:
    """Chat completions and responses."""
    client = load("openai").OpenAI(base_url=f"{url}/v1", api_key="unused")
    common = {"model": model, "temperature": 0, "max_tokens": TOKENS}
    create = client.chat.completions.create

    def tools() -> Any:
        messages: list[Any] = said(NEED)
        message = create(**common, messages=messages, tools=[TOOL], tool_choice="required").choices[0].message
        (call,) = message.tool_calls
        result = {
            "role": "tool",
            "tool_call_id": call.id,
            "content": weather(**json.loads(call.function.arguments)),
        }
        assert create(**common, messages=[*messages, message, result], tools=[TOOL]).choices[0].message
        return call.function.arguments

    def responses() -> Any:
        with client.responses.stream(model=model, input=QUESTION, max_output_tokens=TOKENS) as stream:
            for _ in stream:
                pass
            text = stream.get_final_response().output_text
        parsed = client.responses.parse(model=model, input=QUESTION, text_format=model_of_city())
        return f"{text} {parsed.output_parsed.city}"

    def stream() -> Any:
        chunks = create(
            **common, messages=said(QUESTION), stream=True, stream_options={"include_usage": True}
        )
        return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)

    parse = client.chat.completions.parse
    return {
        "chat": lambda: create(**common, messages=said(QUESTION)).choices[0].message.content,
        "stream": stream,
        "tools": tools,
        "schema": lambda: (
            parse(**common, messages=said(QUESTION), response_format=model_of_city())
            .choices[0]
            .message.parsed.city
        ),
        "responses": responses,
        "completions": lambda: (
            client.completions.create(
                model=model, prompt="Paris is the capital of", max_tokens=8, temperature=0, logprobs=2
            )
            .choices[0]
            .text
        ),
        "models": lambda: client.models.list().data[0].id,
    }


def ollama(url: str, model: str) -> Probes:
    """Ollama's own client."""
    client = load("ollama").Client(url)
    options = {"temperature": 0, "num_predict": TOKENS}

    def chat(text: str = QUESTION, **fields: Any) -> Any:
        return client.chat(model=model, messages=said(text), options=options, **fields)

    return {
        "chat": lambda: chat().message.content,
        "stream": lambda: "".join(part.message.content or "" for part in chat(stream=True)),
        "tools": lambda: chat(NEED, tools=[weather]).message.tool_calls[0].function.arguments["city"],
        "schema": lambda: json.loads(chat(format=CITY).message.content)["city"],
        "generate": lambda: client.generate(model=model, prompt=QUESTION, options=options).response,
        "list, show, ps": lambda: (
            f"{client.list().models[0].model} {client.show(model).details} {client.ps()}"
        ),
    }


def _langchain(chat: Any) -> Probes:
    def tools() -> Any:
        (call,) = chat.bind_tools([weather], tool_choice="any").invoke(NEED).tool_calls
        return call["args"]["city"]

    return {
        "chat": lambda: chat.invoke(QUESTION).text,
        "stream": lambda: "".join(chunk.text for chunk in chat.stream(QUESTION)),
        "tools": tools,
        "schema": lambda: chat.with_structured_output(CITY | {"title": "city"}, method="json_schema").invoke(
            QUESTION
        )["city"],
    }


def langchain_openai(url: str, model: str) -> Probes:
    """ChatOpenAI, also by responses, and an agent."""
    make, given = (
        load("langchain_openai").ChatOpenAI,
        {"model": model, "base_url": f"{url}/v1", "api_key": "unused"},
    )
    chat = make(**given, temperature=0, max_tokens=TOKENS)
    responses = make(**given, max_tokens=TOKENS, use_responses_api=True)
    agent = load("langchain.agents").create_agent(chat, [weather])
    return {
        **_langchain(chat),
        "agent": called(lambda: agent.invoke({"messages": said(NEED)})),
        "responses": lambda: "".join(chunk.text for chunk in responses.stream(QUESTION)),
    }


def langchain_ollama(url: str, model: str) -> Probes:
    """ChatOllama."""
    make = load("langchain_ollama").ChatOllama
    return _langchain(make(base_url=url, model=model, temperature=0, num_predict=TOKENS))


def _llama_index(chat: Any) -> Probes:
    complete = load("llama_index.core.llms")
    function = load("llama_index.core.tools").FunctionTool.from_defaults(weather)

    def tools() -> Any:
        found = chat.chat_with_tools([function], user_msg=NEED, tool_required=True)
        (call,) = chat.get_tool_calls_from_response(found)
        return call.tool_kwargs["city"]

    message = complete.ChatMessage(role="user", content=QUESTION)
    return {
        "chat": lambda: chat.chat([message]).message.content,
        "stream": lambda: "".join(part.delta or "" for part in chat.stream_chat([message])),
        "tools": tools,
        "schema": lambda: chat.as_structured_llm(model_of_city()).chat([message]).raw.city,
    }


def llama_index_openai(url: str, model: str) -> Probes:
    """OpenAILike."""
    make, given = load("llama_index.llms.openai_like").OpenAILike, {"model": model, "api_base": f"{url}/v1"}
    flags = {"is_chat_model": True, "is_function_calling_model": True, "should_use_structured_outputs": True}
    return _llama_index(make(**given, **flags, api_key="unused", temperature=0, max_tokens=TOKENS))


def llama_index_ollama(url: str, model: str) -> Probes:
    """LlamaIndex's class for Ollama."""
    make = load("llama_index.llms.ollama").Ollama
    return _llama_index(
        make(model=model, base_url=url, temperature=0, request_timeout=120.0, context_window=2048)
    )


def _litellm(given: Mapping[str, Any]) -> Probes:
    def complete(text: str = QUESTION, **fields: Any) -> Any:
        common = {"api_key": "unused", "temperature": 0, "max_tokens": TOKENS}
        return load("litellm").completion(**common, **given, messages=said(text), **fields)

    return {
        "chat": lambda: complete().choices[0].message.content,
        "stream": lambda: "".join(part.choices[0].delta.content or "" for part in complete(stream=True)),
        "tools": lambda: (
            complete(NEED, tools=[TOOL], tool_choice="required")
            .choices[0]
            .message.tool_calls[0]
            .function.arguments
        ),
        "schema": lambda: json.loads(complete(response_format=FORMAT).choices[0].message.content)["city"],
    }


def litellm_openai(url: str, model: str) -> Probes:
    """LiteLLM's `openai/`."""
    return _litellm({"model": f"openai/{model}", "api_base": f"{url}/v1"})


def litellm_ollama(url: str, model: str) -> Probes:
    """LiteLLM's `ollama_chat/`."""
    return _litellm({"model": f"ollama_chat/{model}", "api_base": url})


def instructor(url: str, model: str) -> Probes:
    """Its modes."""
    package = load("instructor")

    def create(mode: str) -> Any:
        client = load("openai").OpenAI(base_url=f"{url}/v1", api_key="unused")
        made = package.from_openai(client, mode=package.Mode[mode])
        return made.create(model=model, messages=said(NEED), response_model=model_of_city()).city

    def stream() -> Any:
        client = load("openai").OpenAI(base_url=f"{url}/v1", api_key="unused")
        made = package.from_openai(client, mode=package.Mode.JSON_SCHEMA)
        *_, last = made.create_partial(model=model, messages=said(QUESTION), response_model=model_of_city())
        return last.city

    modes = ("JSON", "MD_JSON", "TOOLS_STRICT", "RESPONSES_TOOLS")
    return {
        "stream": stream,
        "tools": lambda: create("TOOLS"),
        "schema": lambda: create("JSON_SCHEMA"),
        **{mode: partial(create, mode) for mode in modes},
    }


def pydantic_ai(url: str, model: str) -> Probes:
    """Agents by chat and by responses."""
    package, models = load("pydantic_ai"), load("pydantic_ai.models.openai")
    make = load("pydantic_ai.providers.openai").OpenAIProvider
    provider = make(base_url=f"{url}/v1", api_key="unused")

    def agent(api: str = "OpenAIChatModel", **options: Any) -> Any:
        settings = {"temperature": 0, "max_tokens": TOKENS}
        return package.Agent(
            getattr(models, api)(model, provider=provider), model_settings=settings, **options
        )

    async def stream() -> str:
        async with agent().run_stream(QUESTION) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    native = package.NativeOutput(model_of_city())
    return {
        "chat": lambda: agent().run_sync(QUESTION).output,
        "stream": lambda: asyncio.run(stream()),
        "tools": called(lambda: agent(tools=[weather]).run_sync(NEED)),
        "schema": lambda: agent(output_type=native).run_sync(QUESTION).output.city,
        "responses": lambda: agent("OpenAIResponsesModel").run_sync(QUESTION).output,
    }


def openai_agents(url: str, model: str) -> Probes:
    """OpenAI's Agents SDK by responses."""
    package, runner = load("agents"), load("agents").Runner
    package.set_tracing_disabled(disabled=True)

    def agent(api: str = "OpenAIResponsesModel", **options: Any) -> Any:
        client = load("openai").AsyncOpenAI(base_url=f"{url}/v1", api_key="unused")
        made = getattr(package, api)(model, client)
        settings = package.ModelSettings(temperature=0, max_tokens=TOKENS)
        return package.Agent(
            name="agent", instructions="Be brief.", model=made, model_settings=settings, **options
        )

    async def stream() -> str:
        result = runner.run_streamed(agent(), QUESTION)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    def run(text: str, *api: str, **options: Any) -> Any:
        return runner.run_sync(agent(*api, **options), text).final_output

    return {
        "chat": lambda: run(QUESTION),
        "stream": lambda: asyncio.run(stream()),
        "tools": called(lambda: run(NEED, tools=[package.function_tool(weather)])),
        "schema": lambda: run(QUESTION, output_type=model_of_city()).city,
        "chat completions": lambda: run(QUESTION, "OpenAIChatCompletionsModel"),
    }


def dspy(url: str, model: str) -> Probes:
    """Predict by LiteLLM, a typed signature and ReAct."""
    package = load("dspy")
    package.configure(
        lm=package.LM(
            f"openai/{model}", api_base=f"{url}/v1", api_key="unused", cache=False, max_tokens=TOKENS
        ),
        adapter=package.JSONAdapter(),
    )
    return {
        "chat": lambda: package.settings.lm(QUESTION)[0],
        "schema": lambda: package.Predict("question -> city: str")(question=QUESTION).city,
    }


def _haystack(make: Any, stream: str, schema: Mapping[str, Any]) -> Probes:
    message = load("haystack.dataclasses").ChatMessage.from_user
    tool = load("haystack.tools").create_tool_from_function(weather)

    def run(text: str = QUESTION, **options: Any) -> Any:
        return make(**options).run([message(text)])["replies"][0]

    def streamed() -> Any:
        parts: list[str] = []
        listener: Any = {stream: lambda chunk: parts.append(chunk.content or "")}
        run(**listener)
        return "".join(parts)

    return {
        "chat": lambda: run().text,
        "stream": streamed,
        "tools": lambda: run(NEED, tools=[tool]).tool_calls[0].arguments["city"],
        "schema": lambda: json.loads(run(**schema).text)["city"],
    }


def haystack_openai(url: str, model: str) -> Probes:
    """OpenAIChatGenerator."""
    generator = load("haystack.components.generators.chat").OpenAIChatGenerator
    key = load("haystack.utils").Secret.from_token("unused")

    def make(**options: Any) -> Any:
        kwargs = {"temperature": 0, "max_tokens": TOKENS} | options.pop("generation_kwargs", {})
        return generator(
            model=model, api_base_url=f"{url}/v1", api_key=key, generation_kwargs=kwargs, **options
        )

    return _haystack(make, "streaming_callback", {"generation_kwargs": {"response_format": FORMAT}})


def haystack_ollama(url: str, model: str) -> Probes:
    """OllamaChatGenerator."""
    generator = load("haystack_integrations.components.generators.ollama").OllamaChatGenerator

    def make(**options: Any) -> Any:
        kwargs = {"temperature": 0, "num_predict": TOKENS}
        return generator(model=model, url=url, generation_kwargs=kwargs, **options)

    return _haystack(make, "streaming_callback", {"response_format": CITY})


def smolagents(url: str, model: str) -> Probes:
    """Its model for OpenAI servers."""
    package = load("smolagents")
    served = package.OpenAIModel(model_id=model, api_base=f"{url}/v1", api_key="unused", max_tokens=TOKENS)
    messages = [package.ChatMessage(role="user", content=QUESTION)]
    need = [package.ChatMessage(role="user", content=NEED)]
    tool = package.tool(weather)
    return {
        "chat": lambda: served.generate(messages).content,
        "stream": lambda: "".join(part.content or "" for part in served.generate_stream(messages)),
        "tools": lambda: served.generate(need, tools_to_call_from=[tool]).tool_calls[0].function.arguments,
        "schema": lambda: json.loads(served.generate(messages, response_format=FORMAT).content)["city"],
    }


def semantic_kernel(url: str, model: str) -> Probes:
    """OpenAIChatCompletion."""
    package, connector = load("semantic_kernel"), load("semantic_kernel.connectors.ai.open_ai")
    history = load("semantic_kernel.contents").ChatHistory
    behaviour = load("semantic_kernel.connectors.ai.function_choice_behavior").FunctionChoiceBehavior

    def make(text: str, **options: Any) -> tuple[Any, Any, Any]:
        client = load("openai").AsyncOpenAI(base_url=f"{url}/v1", api_key="unused")  # one for each event loop
        said_ = history()
        said_.add_user_message(text)
        settings = connector.OpenAIChatPromptExecutionSettings(temperature=0, max_tokens=TOKENS, **options)
        return connector.OpenAIChatCompletion(ai_model_id=model, async_client=client), said_, settings

    async def chat(text: str = QUESTION, **options: Any) -> Any:
        service, said_, settings = make(text, **options)
        return str(await service.get_chat_message_content(said_, settings))

    async def stream() -> Any:
        service, said_, settings = make(QUESTION)
        return "".join(
            [str(part) async for part in service.get_streaming_chat_message_content(said_, settings)]
        )

    async def tools() -> Any:
        kernel = package.Kernel()
        kernel.add_function("plugin", load("semantic_kernel.functions").kernel_function(weather))
        service, said_, settings = make(NEED, function_choice_behavior=behaviour.Auto())
        return await service.get_chat_message_content(said_, settings, kernel=kernel)

    return {
        "chat": lambda: asyncio.run(chat()),
        "stream": lambda: asyncio.run(stream()),
        "tools": called(lambda: asyncio.run(tools())),
        "schema": lambda: json.loads(asyncio.run(chat(response_format=model_of_city())))["city"],
    }


def agno(url: str, model: str) -> Probes:
    """Agents."""
    make, agent = load("agno.models.openai.like").OpenAILike, load("agno.agent").Agent

    def run(text: str = QUESTION, **options: Any) -> Any:
        served = make(id=model, base_url=f"{url}/v1", api_key="unused", temperature=0, max_tokens=TOKENS)
        served.supports_native_structured_outputs = True
        return agent(model=served, telemetry=False, **options).run(text)

    def stream() -> Any:
        served = make(id=model, base_url=f"{url}/v1", api_key="unused", temperature=0, max_tokens=TOKENS)
        return "".join(
            part.content or "" for part in agent(model=served, telemetry=False).run(QUESTION, stream=True)
        )

    return {
        "chat": lambda: run().content,
        "stream": stream,
        "tools": called(lambda: run(NEED, tools=[weather])),
        "schema": lambda: run(output_schema=model_of_city()).content.city,
    }


def crewai(url: str, model: str) -> Probes:
    """Its LLM class."""
    package = load("crewai")

    def make(**options: Any) -> Any:
        return package.LLM(
            model=f"openai/{model}", base_url=f"{url}/v1", api_key="unused", temperature=0, **options
        )

    functions = {"weather": weather}
    return {
        "chat": lambda: make(max_tokens=TOKENS).call(QUESTION),
        "stream": lambda: make(stream=True, max_tokens=TOKENS).call(QUESTION),
        "tools": called(lambda: make().call(NEED, tools=[TOOL], available_functions=functions)),
        "schema": lambda: make(response_format=model_of_city()).call(QUESTION),
    }


def llm(url: str, model: str) -> Probes:
    """The library of the command `llm`."""
    package = load("llm")
    flags = "supports_schema: true, supports_tools: true"
    entry = f"- {{model_id: one, model_name: '{model}', api_base: '{url}/v1', {flags}}}\n"
    package.user_dir().mkdir(parents=True, exist_ok=True)
    (package.user_dir() / "extra-openai-models.yaml").write_text(entry)
    served, options = package.get_model("one"), {"temperature": 0, "max_tokens": TOKENS}
    return {
        "chat": lambda: served.prompt(QUESTION, stream=False, **options).text(),
        "stream": lambda: "".join(served.prompt(QUESTION, **options)),
        "tools": called(lambda: served.chain(NEED, tools=[weather], options=options).text()),
        "schema": lambda: json.loads(served.prompt(QUESTION, schema=CITY, **options).text())["city"],
    }


def main() -> None:
    """Run all probes of a client; prints what each got, or its error, as JSON."""
    _, name, url, model = sys.argv
    found: dict[str, dict[str, str]] = {}
    for what, probe in globals()[name](url, model).items():
        try:
            found[what] = {"got": str(probe() or "")}
        except Exception as error:
            found[what] = {"error": f"{type(error).__name__}: {error}"}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
