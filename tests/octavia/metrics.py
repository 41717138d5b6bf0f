"""What the stock amphora's proxy makes of an exposition of HAProxy's, which is read from standard input."""

import io
import sys
from unittest import mock

from octavia.cmd import prometheus_proxy


def main():
    proxy = mock.MagicMock(wfile=io.BytesIO())
    added = prometheus_proxy.PrometheusProxy
    for name in ('_add_cpu_utilization', '_add_memory_utilization'):
        setattr(proxy, name, getattr(added, name).__get__(proxy))
    source = mock.MagicMock()
    source.__enter__.return_value.readlines.return_value = sys.stdin.buffer.readlines()
    with mock.patch.object(prometheus_proxy.urllib.request, 'urlopen', return_value=source):
        added.do_GET(proxy)
    sys.stdout.buffer.write(proxy.wfile.getvalue())


if __name__ == '__main__':
    main()
