"""The official client against a server: a completion and a chat, whole and in pieces. Prints what it got as JSON."""

import json
import sys

from openai import BadRequestError, OpenAI

base, model, prompt = sys.argv[1:]
client = OpenAI(base_url=base, api_key="a key", max_retries=0, timeout=60)
common = {"model": model, "temperature": 0, "max_tokens": 12}
ask = {"prompt": prompt, **common}
talk = {"messages": [{"role": "user", "content": prompt}], **common}

whole = client.completions.create(**ask, logprobs=2)
stream = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
chat = client.chat.completions.create(**talk)
chat_stream = list(client.chat.completions.create(**talk, stream=True, logprobs=True, top_logprobs=2))
try:
    client.completions.create(**ask, extra_body={"temprature": 1})
    refused = None
except BadRequestError as error:
    refused = [error.status_code, error.code]

print(json.dumps({
    "models": [found.id for found in client.models.list()],
    "text": whole.choices[0].text,
    "finish": whole.choices[0].finish_reason,
    "usage": whole.usage.total_tokens,
    "token_logprobs": whole.choices[0].logprobs.token_logprobs,
    "pieces": [chunk.choices[0].text for chunk in stream if chunk.choices],
    "last_usage": stream[-1].usage.completion_tokens,
    "chat": chat.choices[0].message.content,
    "chat_pieces": [chunk.choices[0].delta.content or "" for chunk in chat_stream],
    "chat_logprobs": sum(len(chunk.choices[0].logprobs.content) for chunk in chat_stream if chunk.choices[0].logprobs),
    "refused": refused,
}))
