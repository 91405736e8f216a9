#!/usr/bin/env python3
"""Push JPEG files into a stream of hailo-clip, as cameras do: one request for as long as there are frames.

    python3 push.py http://127.0.0.1:5000 gate door *.jpg
"""

import http.client
import json
import sys
import urllib.parse

BOUNDARY = "frame"


def parts(files):
    """Each frame with its length, and the boundary behind it, so that the service knows at once that it is whole."""
    yield f"--{BOUNDARY}\r\n".encode()
    for name in files:
        with open(name, "rb") as file:
            image = file.read()
        head = f"Content-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
        yield head.encode() + image + f"\r\n--{BOUNDARY}\r\n".encode()


def main(url, stream, prompt_set, *files):
    address = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc)
    # policy=queue loses no frame; without it newer frames take the place of those that wait, as is right for a camera.
    query = urllib.parse.urlencode({"prompt_set": prompt_set, "policy": "queue"})
    connection.request(
        "POST",
        f"{address.path}/v1/streams/{urllib.parse.quote(stream, safe='')}/frames?{query}",
        body=parts(files),
        headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"},
        encode_chunked=True,
    )
    answer = connection.getresponse()
    result = json.load(answer)
    if answer.status != 200:
        sys.exit(f"{result['error']} ({result['code']})")
    print(f"{result['frames']} frames: {result['answered']} answered, {result['superseded']} superseded, {result['bad']} bad")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
