"""Octavia's health manager at work: its own listener on a UDP port, its own updates of a database.

    health_manager.py FOLDER

The first line of standard input is JSON: the heartbeat key, an amphora, and its load balancer with
listeners, pools and members, which are put into a new database (SQLite, in FOLDER) as Octavia has them
once they are created. It answers with the port it listens on. To each further line it answers with what
the database holds: operating statuses, and statistics by listener. It ends with its input.

What is not here of the real process is the other half of it, which fails amphorae over.
"""

import json
import logging
import multiprocessing
import os
import socket
import sqlite3
import sys

from octavia_lib.common import constants as lib_constants
from oslo_config import cfg

from octavia.amphorae.drivers.health import heartbeat_udp
from octavia.common import config
from octavia.common import constants
from octavia.db import base_models
from octavia.db import models

import sqlalchemy

LOOKUPS = {
    'operating_status': constants.SUPPORTED_OPERATING_STATUSES,
    'provisioning_status': constants.SUPPORTED_PROVISIONING_STATUSES,
    'protocol': lib_constants.LISTENER_SUPPORTED_PROTOCOLS,
    'algorithm': constants.SUPPORTED_LB_ALGORITHMS,
    'lb_topology': constants.SUPPORTED_LB_TOPOLOGIES,
}

STATUSES = {
    'load_balancer': models.LoadBalancer,
    'listener': models.Listener,
    'pool': models.Pool,
    'member': models.Member,
}


def create(file, wanted):
    """The tables, and in them what is wanted: active, and OFFLINE still."""
    engine = sqlalchemy.create_engine('sqlite:///' + file)
    base_models.BASE.metadata.create_all(engine)
    common = {'project_id': 'p', 'provisioning_status': constants.ACTIVE,
              'operating_status': constants.OFFLINE, 'enabled': True}
    balancer = wanted['load_balancer']
    with engine.begin() as connection:
        def insert(table, **values):
            known = {key: value for key, value in values.items() if key in table.c}
            connection.execute(table.insert(), known)

        tables = base_models.BASE.metadata.tables
        for name, words in LOOKUPS.items():
            for word in words:
                insert(tables[name], name=word)
        insert(models.LoadBalancer.__table__, id=balancer, name='lb',
               topology=constants.TOPOLOGY_SINGLE, **common)
        insert(models.Amphora.__table__, id=wanted['amphora'], load_balancer_id=balancer,
               status=constants.AMPHORA_ALLOCATED, cert_busy=False, vrrp_priority=1)
        for number, listener in enumerate(wanted['listeners']):
            insert(models.Listener.__table__, load_balancer_id=balancer,
                   protocol_port=80 + number, connection_limit=-1, **common, **listener)
        for pool in wanted['pools']:
            insert(models.Pool.__table__, id=pool['id'], load_balancer_id=balancer,
                   protocol=pool['protocol'], lb_algorithm='ROUND_ROBIN', **common)
            for number, member in enumerate(pool['members']):
                insert(models.Member.__table__, id=member, pool_id=pool['id'], weight=1,
                       ip_address='10.0.0.1', protocol_port=1 + number, backup=False, **common)
    engine.dispose()
    # Who reads never waits for who writes.
    sqlite3.connect(file).execute('PRAGMA journal_mode=WAL')


def wait_for_each_other():
    """Has SQLite take its lock when a transaction begins: one that reads first and then writes fails at
    once where another has written meanwhile."""
    @sqlalchemy.event.listens_for(sqlalchemy.Engine, 'before_cursor_execute', retval=True)
    def at_once(_connection, _cursor, statement, parameters, _context, _many):
        return 'BEGIN IMMEDIATE' if statement == 'BEGIN' else statement, parameters


def listen(ready):
    """What `octavia.cmd.health_manager.hm_listener` does."""
    getter = heartbeat_udp.UDPStatusGetter()
    ready.send(getter.sock.getsockname()[1])
    while True:
        getter.check()


def held(file):
    """What the database holds."""
    connection = sqlite3.connect(file)
    statuses = {name: dict(connection.execute(f'SELECT id, operating_status FROM {name}'))
                for name in STATUSES}
    rows = connection.execute('SELECT listener_id, bytes_in, bytes_out, active_connections, '
                              'total_connections, request_errors FROM listener_statistics')
    statuses['statistics'] = {listener: row for listener, *row in rows}
    statuses['health_rows'] = connection.execute('SELECT COUNT(*) FROM amphora_health').fetchone()[0]
    return statuses


def main():
    folder = sys.argv[1]
    file = os.path.join(folder, 'octavia.db')
    wanted = json.loads(sys.stdin.readline())
    create(file, wanted)
    wait_for_each_other()
    config.init(['--config-dir', folder])
    cfg.CONF.set_override('connection', 'sqlite:///' + file, 'database')
    # SQLite has no pool that could be waited for.
    cfg.CONF.set_override('pool_timeout', None, 'database')
    for option, value in {'heartbeat_key': wanted['key'], 'bind_ip': '127.0.0.1', 'bind_port': 0,
                          'health_update_threads': 1, 'stats_update_threads': 1}.items():
        cfg.CONF.set_override(option, value, 'health_manager')
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    forking = multiprocessing.get_context('fork')
    ready, sender = forking.Pipe(duplex=False)
    listener = forking.Process(target=listen, args=(sender,))
    listener.start()
    try:
        print(ready.recv(), flush=True)
        for _ in sys.stdin:
            print(json.dumps(held(file)), flush=True)
    finally:
        # With the processes that it has made.
        os.killpg(0, 15)


if __name__ == '__main__':
    os.setpgid(0, 0)
    main()
