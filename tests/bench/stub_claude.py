#!/usr/bin/python3 -SE
"""Speaks the CLI's stream-json at once, so that what is measured is Skep. Runs in a real cell.

Every answer says when the prompt was read (`in=`) and when the answer was written (`out=`), both by the wall clock.
`stream N PAUSE`: N pieces of text PAUSE seconds apart, each with its own `out=`.
"""

import json
import os
import sys
import time

SESSION = next((a.split("=", 1)[1] for a in sys.argv if a.startswith(("--session-id=", "--resume="))), "s")


def say(*lines):
    os.write(1, "".join(json.dumps({"session_id": SESSION, **line}) + "\n" for line in lines).encode())


def piece(text):
    delta = {"type": "text_delta", "text": text}
    return {"type": "stream_event", "parent_tool_use_id": None,
            "event": {"type": "content_block_delta", "index": 0, "delta": delta}}


def turn(message, read):
    words = str(message["message"]["content"]).split()
    uuid = message.get("uuid")
    say({"type": "system", "subtype": "init", "user_message_uuids": [uuid]})
    text = ""
    if words[:1] == ["stream"]:
        for _ in range(int(words[1])):
            part = f"out={time.time():.6f}\n"
            say(piece(part))
            text += part
            time.sleep(float(words[2]))
    last = f"{' '.join(words[:2])} in={read:.6f} out={time.time():.6f}"
    text += last
    say(piece(last),
        {"type": "result", "subtype": "success", "is_error": False, "result": text, "total_cost_usd": 0.0,
         "usage": {"input_tokens": 1, "output_tokens": 1}, "user_message_uuids": [uuid]})


def main():
    if "--version" in sys.argv:
        print("2.1.329 (Claude Code)")
        return
    for line in sys.stdin.buffer:
        read = time.time()
        frame = json.loads(line)
        if frame["type"] == "control_request":
            body = {"subtype": "success", "request_id": frame["request_id"],
                    "response": {"claude_code_version": "2.1.329"}}
            say({"type": "control_response", "response": body})
        elif frame["type"] == "user":
            turn(frame, read)


main()
