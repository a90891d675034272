from typing import Any, Optional, TypedDict, Union

import numpy as np
import numpy.typing as npt

__version__: str

class Options(TypedDict):
    targets: list[str]
    dtype: list[str]
    max_tokens: Optional[int]
    steps: bool

class Place(TypedDict):
    device: str
    threads: Optional[int]
    tokenizer: Optional[str]

class Settings(TypedDict):
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: list[str]

class Artifact:
    def save(self, path: str) -> None: ...
    def __bytes__(self) -> bytes: ...
    def __len__(self) -> int: ...

class Model:
    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def row_columns(self) -> Optional[int]: ...
    @property
    def routers(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    def score(
        self,
        tokens: npt.NDArray[Any],
        lengths: Optional[npt.NDArray[Any]],
        routing: Optional[npt.NDArray[Any]],
        experts: Optional[npt.NDArray[Any]],
    ) -> tuple[
        npt.NDArray[np.float32],
        npt.NDArray[np.uint8],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint8],
    ]: ...
    def verify(self, weights: Optional[str]) -> str: ...
    def inspect(self) -> str: ...
    def encode(self, text: str) -> npt.NDArray[np.uint32]: ...
    def decode(self, tokens: npt.NDArray[Any]) -> bytes: ...

class Stream:
    def __new__(cls, model: Model, prompt: npt.NDArray[Any], settings: Settings) -> Stream: ...
    def __iter__(self) -> Stream: ...
    def __next__(
        self,
    ) -> tuple[Optional[int], str, npt.NDArray[np.uint8], Optional[str]]: ...

def compile(
    spec: Union[str, tuple[str, str]],
    weights: Union[int, str, dict[str, npt.NDArray[Any]]],
    options: Options,
) -> tuple[Artifact, str]: ...
def load(path: str, place: Place, trust: Optional[str]) -> Model: ...
def load_artifact(artifact: Union[Artifact, bytes], place: Place) -> Model: ...
