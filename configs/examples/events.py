#!/usr/bin/env python3
"""Print what changes in a stream of hailo-clip. A lost connection is opened again, and what has changed meanwhile is told first.

    python3 events.py http://127.0.0.1:5000 gate
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def events(url, stream):
    """All events from now on, for ever: (kind, data)."""
    last = None
    while True:
        request = urllib.request.Request(f"{url}/v1/streams/{urllib.parse.quote(stream, safe='')}/events")
        request.add_header("Accept", "text/event-stream")
        if last:
            request.add_header("Last-Event-ID", last)
        try:
            # The service gives a sign of life every 15 seconds.
            with urllib.request.urlopen(request, timeout=60) as answer:
                print("listening", file=sys.stderr, flush=True)
                kind, data = "", []
                for line in answer:
                    name, _, value = line.decode().rstrip("\r\n").partition(":")
                    value = value.removeprefix(" ")
                    if name == "id":
                        last = value
                    elif name == "event":
                        kind = value
                    elif name == "data":
                        data.append(value)
                    elif not name and not value and data:  # an empty line ends an event; ":" alone is a sign of life
                        yield kind, json.loads("\n".join(data))
                        kind, data = "", []
        except urllib.error.HTTPError as error:
            sys.exit(f"{error.code}: {error.read().decode()}")
        except OSError as error:
            print(f"lost: {error}", file=sys.stderr, flush=True)
        time.sleep(1)


def main(url, stream):
    for kind, event in events(url, stream):
        if kind == "enter":
            print(f"{event['time']} {event['label']}: begins ({event['score']:.2f})", flush=True)
        elif kind == "exit":
            print(f"{event['time']} {event['label']}: ends", flush=True)
        elif kind == "missed":
            print(f"missed {event['missed']} events", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
