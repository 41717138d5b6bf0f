"""What Octavia's health manager makes of heartbeats.

Reads lines KEY DATAGRAM, both in hexadecimal digits (the key's are of its UTF-8 text), and writes
for each a line of JSON: {"message": ...}, or {"error": NAME} when Octavia drops the datagram.
"""

import json
import logging
import sys

from octavia.amphorae.backends.health_daemon import status_message


def verdict(key, datagram):
    try:
        message = status_message.unwrap_envelope(datagram, key)
    except Exception as error:  # the health manager too drops it, whatever is wrong
        return {'error': type(error).__name__}
    return {'message': message}


def main():
    logging.disable(logging.CRITICAL)  # it warns of each datagram that it drops
    for line in sys.stdin:
        key, datagram = map(bytes.fromhex, line.split(' '))
        print(json.dumps(verdict(key.decode(), datagram)))


if __name__ == '__main__':
    main()
