"""What Frigate 0.18 does with a llama.cpp provider for embeddings, call by call: frigate.py URL MODEL ROOT.

Prints {"results": [[check, "" or why it failed], ...]} as JSON. requests and numpy are used where they are, else
urllib.
"""
import base64
import json
import math
import sys
import urllib.error
import urllib.request

try:
    import requests
except ImportError:
    requests = None
try:
    import numpy
except ImportError:
    numpy = None

WIDTH = 768  # of Frigate's table of vectors

base, model, root = sys.argv[1:]
base = base.rstrip("/").replace("/v1", "")
results = []


def call(method, path, body=None):
    """Returns (status, parsed body or text)."""
    if requests:
        response = requests.request(method, base + path, json=body, timeout=10 if method == "GET" else 120)
        status, text = response.status_code, response.text
    else:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def embed(content):
    """As the plugin does: both forms of an answer, mean pooling of matrices, zero padding to the table's width."""
    status, answer = call("POST", "/embeddings", {"model": model, "content": content})
    if status != 200:
        raise RuntimeError(f"{status}: {str(answer)[:500]}")
    vectors = []
    for item in answer["data"] if isinstance(answer, dict) else answer:
        vector = item.get("embedding") if isinstance(item, dict) else item
        if isinstance(vector[0], list):
            vector = numpy.mean(vector, axis=0).tolist() if numpy else [sum(column) / len(vector) for column in zip(*vector)]
        if len(vector) > WIDTH:
            vector = vector[:WIDTH]
        vectors.append([float(x) for x in vector] + [0.0] * (WIDTH - len(vector)))
    if len(vectors) != len(content):
        raise RuntimeError(f"{len(vectors)} vectors for {len(content)} items")
    for vector in vectors:
        if not all(map(math.isfinite, vector)) or abs(math.hypot(*vector) - 1) > 1e-4:
            raise RuntimeError("a vector is not of unit length")
    return vectors


def check(name):
    def run(f):
        try:
            f()
            results.append([name, ""])
        except Exception as error:  # whatever it is, the table shows it
            results.append([name, f"{type(error).__name__}: {error}"])
    return run


def reference(route, body):
    status, answer = call("POST", route, body)
    assert status == 200, f"{route}: {status} {answer}"
    return answer["embedding"] + [0.0] * (WIDTH - len(answer["embedding"]))


def near(a, b):
    off = max(abs(x - y) for x, y in zip(a, b, strict=True))
    assert off <= 1e-5, f"differs by {off}"


def encoded(name):
    with open(f"{root}/hailo/demo/samples/{name}.jpg", "rb") as file:
        return base64.b64encode(file.read()).decode()


marker = "<__media__>"


@check("the model is listed")
def _():
    status, models = call("GET", "/v1/models")
    assert status == 200, f"{status} {models}"
    found = [m for m in models["data"] if m["id"] == model or model in m.get("aliases", [])]
    assert found, f"{model} is not in {models}"
    modalities = found[0].get("architecture", {}).get("input_modalities", ["text", "image"])
    assert "image" in modalities and "text" in modalities, modalities


@check("/props")
def _():
    global marker
    status, props = call("GET", f"/props?model={model}")
    assert status == 200, f"{status} {props}"
    marker = props["media_marker"]
    assert marker and props["modalities"]["vision"] is True, props
    assert isinstance(props["default_generation_settings"]["n_ctx"], int), props


def image_item(name):
    return {"prompt_string": f"{marker}\n", "multimodal_data": [encoded(name)]}


@check("descriptions, one by one")
def _():
    for text in ["a photo of a cat", "a man walks a dog", "Ein Fahrrad – 自行车"]:
        near(embed([{"prompt_string": text}])[0], reference("/v1/embed/text", {"text": text}))


@check("a batch of 32 thumbnails")
def _():
    names = ["cat", "dog", "pizza", "guitar"] * 8
    for name, vector in zip(names, embed([image_item(n) for n in names]), strict=True):
        near(vector, reference("/v1/embed/image", {"image": encoded(name)}))


@check("texts and images in one request keep their order")
def _():
    vectors = embed([{"prompt_string": "a photo of a dog"}, image_item("cat"), {"prompt_string": "a photo of a cat"}])
    near(vectors[0], reference("/v1/embed/text", {"text": "a photo of a dog"}))
    near(vectors[1], reference("/v1/embed/image", {"image": encoded("cat")}))
    near(vectors[2], reference("/v1/embed/text", {"text": "a photo of a cat"}))


@check("a description of 400 words is cut, not refused")
def _():
    embed([{"prompt_string": "a man in a red jacket walks slowly past the gate with a dog " * 30}])


@check("an image that is none is refused")
def _():
    item = {"prompt_string": f"{marker}\n", "multimodal_data": ["AAAA"]}
    status, answer = call("POST", "/embeddings", {"model": model, "content": [item]})
    assert 400 <= status < 500, f"{status} {answer}"
    assert isinstance(answer["error"]["message"], str), answer


@check("another model is refused")
def _():
    status, answer = call("POST", "/embeddings", {"model": "another", "content": [{"prompt_string": "x"}]})
    assert 400 <= status < 500, f"{status} {answer}"


json.dump({"results": results}, sys.stdout)
