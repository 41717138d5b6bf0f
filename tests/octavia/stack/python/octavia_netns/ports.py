"""The ports on the networks: a stand-in for the part of Neutron that Octavia
writes.  Octavia's services are several processes, so the ports live in an
SQLite file."""

import contextlib
import ipaddress
import os
import sqlite3
import uuid

from octavia.common import constants
from octavia.network import base
from octavia.network import data_models

# 19 has it in octavia.common.constants where 11 has it in its Neutron driver.
OCTAVIA_OWNER = 'Octavia'

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    network_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    device_owner TEXT NOT NULL,
    admin_state_up INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS fixed_ips (
    port_id TEXT NOT NULL REFERENCES ports(id) ON DELETE CASCADE,
    subnet_id TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    UNIQUE (subnet_id, ip_address)
);
"""


class Ports:
    def __init__(self, path, topology):
        self._path = path
        self._topology = topology
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with self._transaction() as db:
            for statement in _SCHEMA.split(';'):
                db.execute(statement)

    @contextlib.contextmanager
    def _transaction(self):
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute('PRAGMA foreign_keys = ON')
            db.execute('BEGIN IMMEDIATE')
            with db:
                yield db
        finally:
            db.close()

    def create(self, network_id, name, fixed_ips=(), device_id='',
               device_owner=OCTAVIA_OWNER, admin_state_up=True):
        """Creates a port.

        :param fixed_ips: (subnet ID, IP address or None) pairs; without any,
                          the port gets an address on the first subnet.
        """
        if network_id not in self._topology.networks:
            raise base.NetworkNotFound(f'no network {network_id}')
        if not fixed_ips:
            network = self._topology.networks[network_id]
            fixed_ips = [(network.subnets[0], None)]
        port_id = str(uuid.uuid4())
        with self._transaction() as db:
            db.execute('INSERT INTO ports VALUES (NULL, ?, ?, ?, ?, ?, ?)',
                       (port_id, name, network_id, device_id, device_owner,
                        admin_state_up))
            for subnet_id, ip_address in fixed_ips:
                self._add_fixed_ip(db, port_id, subnet_id, ip_address)
            return self._select(db, 'id = ?', port_id)[0]

    def get(self, port_id):
        with self._transaction() as db:
            found = self._select(db, 'id = ?', port_id)
        if not found:
            raise base.PortNotFound(f'no port {port_id}')
        return found[0]

    def find(self, **columns):
        """All the ports that have the given values, oldest first."""
        where = ' AND '.join(f'{column} = ?' for column in columns)
        with self._transaction() as db:
            return self._select(db, where, *columns.values())

    def update(self, port_id, **columns):
        """Does nothing where there is no such port."""
        assignments = ', '.join(f'{column} = ?' for column in columns)
        with self._transaction() as db:
            db.execute(f'UPDATE ports SET {assignments} WHERE id = ?',
                       (*columns.values(), port_id))

    def add_fixed_ip(self, port_id, subnet_id, ip_address=None):
        with self._transaction() as db:
            self._add_fixed_ip(db, port_id, subnet_id, ip_address)

    def remove_fixed_ip(self, port_id, subnet_id):
        with self._transaction() as db:
            db.execute('DELETE FROM fixed_ips WHERE port_id = ? '
                       'AND subnet_id = ?', (port_id, subnet_id))

    def delete(self, port_id):
        """Does nothing where there is no such port."""
        with self._transaction() as db:
            db.execute('DELETE FROM ports WHERE id = ?', (port_id,))

    def _add_fixed_ip(self, db, port_id, subnet_id, ip_address):
        if subnet_id not in self._topology.subnets:
            raise base.SubnetNotFound(f'no subnet {subnet_id}')
        if ip_address is None:
            ip_address = self._free_address(db, subnet_id)
        ip_address = str(ipaddress.ip_address(ip_address))
        try:
            db.execute('INSERT INTO fixed_ips VALUES (?, ?, ?)',
                       (port_id, subnet_id, ip_address))
        except sqlite3.IntegrityError as error:
            raise base.VIPInUseException(
                f'IP address {ip_address} is in use') from error

    def _free_address(self, db, subnet_id):
        """The lowest free address from the 100th host of the subnet on: the
        ones before are left to the test's own clients and servers."""
        subnet = ipaddress.ip_network(self._topology.subnets[subnet_id].cidr)
        taken = {row['ip_address'] for row in db.execute(
            'SELECT ip_address FROM fixed_ips WHERE subnet_id = ?',
            (subnet_id,))}
        for host in range(100, min(subnet.num_addresses - 1, 1000)):
            if str(subnet[host]) not in taken:
                return str(subnet[host])
        raise base.AllocateVIPException(f'no free address on {subnet}')

    @staticmethod
    def _select(db, where, *parameters):
        rows = db.execute(f'SELECT * FROM ports WHERE {where} ORDER BY number',
                          parameters).fetchall()
        return [_port(row, db.execute('SELECT * FROM fixed_ips WHERE '
                                      'port_id = ? ORDER BY rowid',
                                      (row['id'],)))
                for row in rows]


def _port(row, fixed_ips):
    number = row['number'].to_bytes(3)
    up = row['admin_state_up'] and row['device_id']
    return data_models.Port(
        id=row['id'], name=row['name'], network_id=row['network_id'],
        mac_address='fa:16:3e:' + number.hex(':'),
        device_id=row['device_id'], device_owner=row['device_owner'],
        admin_state_up=bool(row['admin_state_up']),
        status=constants.ACTIVE if up else constants.DOWN,
        fixed_ips=[data_models.FixedIP(subnet_id=fixed_ip['subnet_id'],
                                       ip_address=fixed_ip['ip_address'])
                   for fixed_ip in fixed_ips])
