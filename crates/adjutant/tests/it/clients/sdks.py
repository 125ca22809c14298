"""What people do with the official libraries: plain, streaming, tools, structured output."""

import anthropic
import openai
import pydantic
from google import genai
from google.genai import types

WORDS = "Plain words, one by one."
SCHEMA = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"], "additionalProperties": False}
RESULTS = {"answer": "the answer is 42", "other": "nothing else"}


class Answer(pydantic.BaseModel):
    answer: int


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


# --- OpenAI: Responses

oai = openai.OpenAI(max_retries=0)


def responses_plain():
    answer = oai.responses.create(model="gpt-x", input="Say something.")
    same(answer.output_text, WORDS)
    same((answer.status, answer.usage.output_tokens), ("completed", 20))


def responses_stream():
    with oai.responses.stream(model="gpt-x", input="Say something.") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    same("".join(deltas), WORDS)
    same(final.output_text, WORDS)
    assert len(deltas) > 1, "it does not come at once"


def responses_tools():
    tools = [{"type": "function", "name": "lookup", "description": "looks up", "parameters": SCHEMA, "strict": True}]
    conversation = [{"role": "user", "content": "Look it up."}]
    with oai.responses.stream(model="gpt-x", input=conversation, tools=tools) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    same([(call.name, call.arguments.replace(" ", "")) for call in calls], [("lookup", '{"key":"answer"}'), ("lookup", '{"key":"other"}')])
    conversation += [item.to_dict() for item in final.output]
    for call, result in zip(calls, RESULTS.values()):
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    same(oai.responses.create(model="gpt-x", input=conversation, tools=tools).output_text, "It is 42.")


def responses_object():
    answer = oai.responses.parse(model="gpt-x", input="Say it as an object.", text_format=Answer)
    same(answer.output_parsed, Answer(answer=42))


# --- OpenAI: chat completions


def chat_plain():
    answer = oai.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "Say something."}])
    same((answer.choices[0].message.content, answer.choices[0].finish_reason), (WORDS, "stop"))
    same(answer.usage.completion_tokens, 20)


def chat_stream():
    asked = {"model": "gpt-x", "messages": [{"role": "user", "content": "Say something."}], "stream_options": {"include_usage": True}}
    with oai.chat.completions.stream(**asked) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    same("".join(deltas), WORDS)
    same((final.choices[0].message.content, final.usage.completion_tokens), (WORDS, 20))


def chat_tools():
    tools = [{"type": "function", "function": {"name": "lookup", "description": "looks up", "parameters": SCHEMA, "strict": True}}]
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Look it up."}]
    with oai.chat.completions.stream(model="gpt-x", messages=conversation, tools=tools) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    same([call.function.arguments.replace(" ", "") for call in message.tool_calls], ['{"key":"answer"}', '{"key":"other"}'])
    calls = [call.to_dict() for call in message.tool_calls]
    for call in calls:
        call["function"].pop("parsed_arguments", None)
    conversation.append({"role": "assistant", "content": message.content, "tool_calls": calls})
    for call, result in zip(message.tool_calls, RESULTS.values()):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = oai.chat.completions.create(model="gpt-x", messages=conversation, tools=tools)
    same(answer.choices[0].message.content, "It is 42.")


def chat_object():
    asked = [{"role": "user", "content": "Say it as an object."}]
    answer = oai.chat.completions.parse(model="gpt-x", messages=asked, response_format=Answer)
    same(answer.choices[0].message.parsed, Answer(answer=42))


# --- Anthropic

claude = anthropic.Anthropic(max_retries=0)
ASKED = {"model": "claude-x", "max_tokens": 1000}


def messages_plain():
    answer = claude.messages.create(**ASKED, messages=[{"role": "user", "content": "Say something."}])
    same((answer.content[0].text, answer.stop_reason, answer.usage.output_tokens), (WORDS, "end_turn", 20))


def messages_stream():
    with claude.messages.stream(**ASKED, messages=[{"role": "user", "content": "Say something."}]) as stream:
        deltas = list(stream.text_stream)
        final = stream.get_final_message()
    same("".join(deltas), WORDS)
    same((final.content[0].text, final.usage.output_tokens), (WORDS, 20))
    assert len(deltas) > 1, "it does not come at once"


def messages_tools():
    tools = [{"name": "lookup", "description": "looks up", "input_schema": SCHEMA}]
    conversation = [{"role": "user", "content": "Look it up."}]
    with claude.messages.stream(**ASKED, messages=conversation, tools=tools) as stream:
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    same(([call.input for call in calls], final.stop_reason), ([{"key": "answer"}, {"key": "other"}], "tool_use"))
    conversation.append({"role": "assistant", "content": [block.to_dict() for block in final.content]})
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": result} for call, result in zip(calls, RESULTS.values())]
    conversation.append({"role": "user", "content": results})
    same(claude.messages.create(**ASKED, messages=conversation, tools=tools).content[0].text, "It is 42.")


# --- Google

google = genai.Client()


def generate_plain():
    answer = google.models.generate_content(model="gemini-x", contents="Say something.")
    same((answer.text, answer.candidates[0].finish_reason.name), (WORDS, "STOP"))


def generate_stream():
    pieces = [chunk.text or "" for chunk in google.models.generate_content_stream(model="gemini-x", contents="Say something.")]
    same("".join(pieces), WORDS)
    assert len(pieces) > 1, "it does not come at once"


def generate_tools():
    lookup = types.FunctionDeclaration(name="lookup", description="looks up", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[lookup])])
    conversation = [types.Content(role="user", parts=[types.Part.from_text(text="Look it up.")])]
    answer = google.models.generate_content(model="gemini-x", contents=conversation, config=config)
    same([call.args for call in answer.function_calls], [{"key": "answer"}, {"key": "other"}])
    conversation.append(answer.candidates[0].content)
    results = zip(answer.function_calls, RESULTS.values())
    parts = [types.Part(function_response=types.FunctionResponse(id=call.id, name="lookup", response={"output": result})) for call, result in results]
    conversation.append(types.Content(role="user", parts=parts))
    same(google.models.generate_content(model="gemini-x", contents=conversation, config=config).text, "It is 42.")


def generate_object():
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Answer)
    answer = google.models.generate_content(model="gemini-x", contents="Say it as an object.", config=config)
    same(answer.parsed, Answer(answer=42))


CASES = [
    responses_plain, responses_stream, responses_tools, responses_object,
    chat_plain, chat_stream, chat_tools, chat_object,
    messages_plain, messages_stream, messages_tools,
    generate_plain, generate_stream, generate_tools, generate_object,
]

failed = 0
for case in CASES:
    try:
        case()
    except BaseException as error:
        failed += 1
        print(f"{case.__name__}: {type(error).__name__}: {error}")
print("some cases failed" if failed else f"all {len(CASES)} cases are good")
raise SystemExit(1 if failed else 0)
