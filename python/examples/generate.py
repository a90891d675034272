"""Compiles the example model, continues a text, and shows how many layers each new token executed."""

import skipc

artifact = skipc.compile("models/kjv-12l-d25.toml", weights="models/kjv-12l-d25.safetensors")
model = skipc.load(artifact)
prompt = "In the beginning God created the heaven and the earth. And"

print(prompt, end="")
executed = []
for piece in model.stream(prompt, 64):
    print(piece.text, end="", flush=True)
    executed.append(int(piece.gates.sum()))
print(f"\nof {model.routers} layers that may be skipped, new tokens executed {executed[1:-1]}")
