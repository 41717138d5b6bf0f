"""What Octavia's health manager would do on a heartbeat, with nothing but its database mocked.

Reads lines of JSON: what the database holds of a load balancer, a heartbeat key, a datagram in hexadecimal
digits, how long it waited, and whether its amphora is known. Writes for each what would be written.
"""

import json
import logging
import sys
import time
from unittest import mock

from octavia.amphorae.backends.health_daemon import status_message
from octavia.amphorae.drivers.health import heartbeat_udp
# It knows the options, and their defaults.
from octavia.common import config  # noqa: F401
from octavia.statistics import stats_base


def row(asked):
    message = status_message.unwrap_envelope(bytes.fromhex(asked['datagram']), asked['key'])
    message['recv_time'] = time.time() - asked['delay']
    done = {'updates': [], 'health_row_written': False, 'vm_deleted': False, 'stats': []}
    updater = heartbeat_udp.UpdateHealthDb()

    def noting(kind):
        def update(_session, identifier, operating_status):
            done['updates'].append([kind, identifier, operating_status])
        return mock.MagicMock(update=update)

    for kind in ('listener', 'loadbalancer', 'member', 'pool'):
        setattr(updater, kind + '_repo', noting(kind))
    updater.amphora_repo = mock.MagicMock()
    updater.amphora_repo.get_lb_for_health_update.return_value = asked['database']
    updater.amphora_repo.get.return_value = mock.MagicMock() if asked['known'] else None
    updater.amphora_health_repo = mock.MagicMock()

    compute = mock.MagicMock()

    def count(statistics, deltas=False):
        rows = [dict(it.get_stats(), listener_id=it.listener_id) for it in statistics]
        done['stats'].append({'deltas': deltas, 'rows': rows})

    with mock.patch.object(heartbeat_udp.db_api, 'get_session'), \
            mock.patch.object(heartbeat_udp.stevedore_driver, 'DriverManager',
                              return_value=compute), \
            mock.patch.object(stats_base, 'update_stats_via_driver', count):
        for step in (lambda: updater._update_health(message, '192.0.2.1'),
                     lambda: heartbeat_udp.update_stats(message)):
            try:
                step()
            except Exception as error:  # the process logs it and goes on
                done.setdefault('failed', []).append(type(error).__name__)
    done['health_row_written'] = updater.amphora_health_repo.replace.called
    done['vm_deleted'] = compute.driver.delete.called
    return done


def main():
    logging.disable(logging.CRITICAL)  # it warns of much that is in the rows
    for line in sys.stdin:
        print(json.dumps(row(json.loads(line))))


if __name__ == '__main__':
    main()
