"""OpenAI's protocol for embeddings, and so much of it for chats as tests and examples need.

The model is all-MiniLM-L6-v2; with --counting, vectors are made of a hash of the text, which is fast
and needs no packages. GET /control says what it was asked; POST /control changes what it does.
"""

import argparse
import collections
import hashlib
import http.server
import json
import os
import pathlib
import signal
import sys
import threading
import time


class Counting:
    """In place of a model."""

    def embed(self, texts):
        def vector(text):
            bits = hashlib.shake_128(text.encode()).digest(32)
            return [byte / 128 - 1 for byte in bits]

        return [vector(text) for text in texts], sum(len(text) // 4 + 1 for text in texts)


class Control:
    """What was asked, and what is to go wrong:

    {"delay": 0.05,                          seconds before each answer
     "fail": {"status": 429, "times": 3,     so many requests are answered so
              "headers": {"retry-after": "1"}},
     "reset": true}                          counts from 0 again
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.delay, self.fail = 0, {}
        self.reset()

    def reset(self):
        self.counts, self.distinct = collections.Counter(), set()

    def change(self, wish):
        with self.lock:
            if wish.get("reset"):
                self.reset()
            self.delay = wish.get("delay", self.delay)
            self.fail = wish.get("fail", self.fail)

    def note(self, inputs):
        """Counts a request; returns how long to wait, and how it is to fail, if it is."""
        with self.lock:
            self.counts["requests"] += 1
            self.counts["inputs"] += len(inputs)
            self.distinct.update(inputs)
            failing = self.fail.get("times", 0) > 0
            if failing:
                self.fail["times"] -= 1
            return self.delay, self.fail if failing else None

    def said(self):
        with self.lock:
            return {"requests": 0, "inputs": 0, **self.counts, "distinct": len(self.distinct)}


def instance(schema, prompt):
    """Something that a schema describes, with the prompt for each text."""
    kind = schema.get("type")
    if kind == "object":
        return {name: instance(of, prompt) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}), prompt)]
    return {"string": prompt, "integer": len(prompt), "number": len(prompt), "boolean": True}.get(kind)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    model, control, key = None, Control(), None
    busy = threading.BoundedSemaphore(os.cpu_count() or 1)

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, headers=()):
        body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, message, param=None, headers=()):
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        self.answer(status, {"error": error}, headers)

    def do_GET(self):
        if self.path == "/control":
            self.answer(200, self.control.said())
        else:
            self.error(404, "no such path")

    def do_POST(self):
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        except ValueError:
            return self.error(400, "the body is no JSON")
        if self.path == "/control":
            self.control.change(body)
            return self.answer(200, self.control.said())
        if self.key and self.headers["Authorization"] != f"Bearer {self.key}":
            return self.error(401, "Incorrect API key provided")
        embeds = self.path == "/v1/embeddings"
        if not embeds and self.path != "/v1/chat/completions":
            return self.error(404, "no such path")
        if embeds:
            inputs = body.get("input")
            inputs = [inputs] if isinstance(inputs, str) else inputs
        else:
            inputs = [message["content"] for message in body.get("messages", [])]
        delay, fail = self.control.note(inputs)
        time.sleep(delay)
        if fail:
            return self.error(fail["status"], "as it was told to", headers=fail.get("headers", {}))
        (self.embed if embeds else self.chat)(body, inputs)

    def embed(self, body, inputs):
        if not inputs or not all(isinstance(text, str) and text for text in inputs):
            return self.error(400, "'$.input' is invalid", "input")
        # More at a time than there are processors would only take more memory.
        with self.busy:
            vectors, tokens = self.model.embed(inputs)
        dimensions = body.get("dimensions")
        if dimensions not in (None, len(vectors[0])):
            return self.error(400, "This model does not support specifying dimensions.", "dimensions")
        data = [
            {"object": "embedding", "index": n, "embedding": [float(number) for number in vector]}
            for n, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.answer(200, {"object": "list", "model": body.get("model"), "data": data, "usage": usage})

    def chat(self, body, inputs):
        prompt = inputs[-1]
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        content = f"echo: {prompt}" if schema is None else json.dumps(instance(schema, prompt))
        message = {"role": "assistant", "content": content, "refusal": None}
        tokens = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": len(content) // 4 + 1}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer(200, {"object": "chat.completion", "choices": [choice], "usage": tokens})


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--counting", action="store_true")
    parser.add_argument("--api-key")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--while", dest="process", type=int)
    options = parser.parse_args()
    if options.counting:
        Handler.model = Counting()
    else:
        from model import Model

        Handler.model = Model()
    Handler.key = options.api_key
    server = Server(("127.0.0.1", options.port), Handler)
    url = options.dir / "url"

    def stop(*_):
        url.unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    written = options.dir / "url.new"
    written.write_text(f"http://127.0.0.1:{server.server_port}/v1\n")
    written.rename(url)
    while options.process is None or pathlib.Path(f"/proc/{options.process}").exists():
        time.sleep(0.5)
    stop()


if __name__ == "__main__":
    sys.exit(main())
