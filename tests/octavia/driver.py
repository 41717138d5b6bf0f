"""Lets Octavia's own REST driver talk to an amphora agent, and tells what came of it.

    driver.py --pki DIRECTORY --work DIRECTORY --address ADDRESS -- COMMAND...

Makes WORK/amphora-agent.conf by Octavia's templater, starts COMMAND with `--config` (that file)
and `--control` (WORK/control), waits for its line `ready PORT`, and calls the driver: a line of
JSON on stdout for each call, what it returned or raised and the requests it made. PKI is made by
pki.py; ADDRESS is any of 127.0.0.0/8, best one that no other run uses.

WORK/control tells the server under test what happens on its machine, at every request:

    nics.json   {"host": {MAC: NAME}, "addresses": {ADDRESS: NAME}}: NICs that have been plugged
                in, and the addresses of those that the agent has moved into its namespace
    fail        present: whatever is applied fails with 500, and this file's text for details

expected/VERSION.json is what this prints in the environment of that version of Octavia when
COMMAND is the stock agent. To make it again, after `cargo xtask setup test`, in target/octavia:

    VERSION/bin/python ../../tests/octavia/pki.py generated PKI
    VERSION/bin/python ../../tests/octavia/driver.py --pki PKI --work WORK \
        --address 127.1.2.3 -- 19.0.0/bin/python ../../tests/octavia/stock_agent.py \
        > ../../tests/octavia/expected/VERSION.json

PKI and WORK are folders that are not there yet. The agent is that of 19.0.0 for old controllers
too, because its part is the one that the server under test plays.
"""

import argparse
import contextlib
import json
import logging
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import types

from oslo_config import cfg
from oslo_log import log
import requests

from octavia.amphorae.backends.agent import agent_jinja_cfg
from octavia.amphorae.drivers.haproxy import rest_api_driver

import models
import pki

CONF = cfg.CONF

PORT = 9443
ATTEMPTS = 2  # of a request that is not answered
MEMBERS_MAX = 10_000
PATIENCE_S = 10  # for a server to end


class Server:
    """The server under test, a child process."""

    def __init__(self, command):
        self.command = command
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline()
        if said != f'ready {PORT}\n':
            self.stop()
            raise RuntimeError(f'{self.command} said {said!r}, not that it is ready')

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=PATIENCE_S)
        finally:
            self.process.kill()
            self.process.stdout.close()


class Machine:
    """What the server under test is told of its machine."""

    def __init__(self, control):
        self.control = control
        self.nics = {'host': {}, 'addresses': {}}
        self._write()

    def plug_in(self, mac, name, addresses, inside):
        """A NIC appears; once the agent has moved it, it is `inside` and has `addresses`."""
        self.nics['host'][mac] = name
        self.nics['addresses'].update(dict.fromkeys(addresses, inside))
        self._write()

    @contextlib.contextmanager
    def failing(self):
        fail = self.control / 'fail'
        fail.write_text('boom')
        try:
            yield
        finally:
            fail.unlink()

    def _write(self):
        aside = self.control / 'nics.json.new'
        aside.write_text(json.dumps(self.nics))
        aside.rename(self.control / 'nics.json')


class Certificates:
    """In the place of Barbican, which also answers with bytes."""

    def __init__(self, tenant):
        self.tenant = tenant

    def get_cert(self, _context, reference, **_options):
        return self.tenant[reference]


class Controller:
    """The driver, and what the calls need beside it."""

    def __init__(self, options, server, machine):
        self.pki = options.pki
        self.address = options.address
        self.server = server
        self.machine = machine
        self.driver = rest_api_driver.HaproxyAmphoraLoadBalancerDriver()
        self.is_old = not hasattr(self.driver, 'check')  # takes its arguments as 4.1 does
        tenant = {name: self._issue(f'{name}.example.org') for name in ('default', 'sni')}
        self.driver.cert_manager = Certificates(tenant)
        self.on_retry = None
        self.requests = []
        self._watch()

    # Each call gets models of its own, as each task of a flow does: all begin with discovery.

    def load_balancer(self, *listeners, **fields):
        return models.load_balancer(self.address, *listeners, **fields)

    def amphora(self):
        return self.load_balancer().amphorae[0]

    def update(self, *listeners):
        whole = self.load_balancer(*listeners)
        self.driver.update_amphora_listeners(whole, whole.amphorae[0])

    def delete(self, *listeners):
        """The last of `listeners`."""
        self.driver.delete(self.load_balancer(*listeners).listeners[-1])

    def tcp(self, name='tcp', port=8022, **fields):
        monitor = models.tcp_monitor('t')
        return models.listener(name, 'TCP', port, models.pool('p1', 'TCP', health_monitor=monitor),
                               **fields)

    def many(self):
        return models.listener('many', 'TCP', 8022, models.pool('many', 'TCP', MEMBERS_MAX))

    def udp(self):
        return models.listener('udp', 'UDP', 53, models.pool('p3', 'UDP'))

    def tls(self):
        return models.listener('th', 'TERMINATED_HTTPS', 8443, models.pool('p2', 'HTTP'),
                               tls_certificate_id='default', sni_containers=[models.sni('sni')])

    def info(self):
        """Which keys; the values are the server's own."""
        return sorted(self.driver.get_info(self.amphora()))

    def boot_wait(self):
        if self.is_old:
            return self.info()
        return sorted(self.driver.get_info(self.amphora(), raise_retry_exception=True))

    def plug_vip(self, *additional):
        whole = self.load_balancer()
        amphora = whole.amphorae[0]
        if self.is_old:
            config = models.network_config(amphora)
            return self.driver.post_vip_plug(amphora, whole, config)
        return self.driver.post_vip_plug(amphora, whole, {}, models.vip_port(), models.vip_subnet(),
                                         additional_vip_data=list(additional))

    def plug_vip_of_new_nic(self):
        self.machine.plug_in(models.VIP_MAC, 'ens7', [models.VIP, models.VRRP_IP], 'eth1')
        if self.is_old:
            return self.plug_vip()
        return self.plug_vip(models.additional_vip())

    def plug_network(self, port):
        config = () if self.is_old else ({'vip_subnet': models.vip_subnet().to_dict(recurse=True)},)
        self.driver.post_network_plug(self.amphora(), port, *config)

    def member_port(self, mac=models.MEMBER_MAC):
        on = models.subnet('10.1.0.0/24', '10.1.0.1')
        return models.port('member-port', mac, 1400, models.MEMBER_IP, on)

    def plug_member_of_new_nic(self):
        self.machine.plug_in(models.MEMBER_MAC, 'ens8', [models.MEMBER_IP], 'eth2')
        self.plug_network(self.member_port())

    def plug_member_of_late_nic(self):
        self.on_retry = lambda: self.machine.plug_in(models.LATE_MAC, 'ens9', [], 'eth3')
        self.plug_network(self.member_port(models.LATE_MAC))

    def interface(self, address):
        amphora = self.amphora()
        if self.is_old:
            amphora.vrrp_ip = address
            return self.driver.get_vrrp_interface(amphora)
        return self.driver.get_interface_from_ip(amphora, address)

    def update_while_failing(self):
        with self.machine.failing():
            self.update(self.tcp(), self.udp())

    def update_vrrp(self):
        whole = self.load_balancer(topology='ACTIVE_STANDBY')
        amphora = whole.amphorae[0]
        if self.is_old:
            return self.driver.update_vrrp_conf(whole, models.network_config(amphora))
        subnet = models.vip_subnet().to_dict(recurse=True)
        config = {amphora.id: {'vip_subnet': subnet, 'additional_vip_data': []}}
        return self.driver.update_vrrp_conf(whole, config, amphora)

    def start_vrrp(self):
        whole = self.load_balancer()
        self.driver.start_vrrp_service(whole if self.is_old else whole.amphorae[0])

    def rules(self, address, *rules):
        self.driver.set_interface_rules(self.amphora(), address, list(rules))

    def update_agent_config(self):
        self.driver.update_amphora_agent_config(self.amphora(), agent_config())

    def rotate(self):
        """Whether the very next connection is served with the new certificate."""
        issued = self._issue(models.AMPHORA)
        self.driver.upload_cert_amp(self.amphora(), pki.pem(issued))
        return self._served() == ssl.PEM_cert_to_DER_cert(issued.certificate.decode())

    def info_when_down_at_first(self):
        self.server.stop()
        self.on_retry = self.server.start
        return self.info()

    def restart_between(self):
        self.info()
        self.server.stop()
        self.server.start()
        self.update(self.tcp(), self.udp())

    def stranger(self, certificate):
        """Discovery with another client certificate, or with none."""
        driver = rest_api_driver.HaproxyAmphoraLoadBalancerDriver()
        refused = certificate and str(self.pki / 'refused' / certificate)
        driver.clients['base'].session.cert = refused
        return driver.get_info(self.amphora())

    def _served(self):
        context = ssl.create_default_context(cafile=str(self.pki / 'server_ca.pem'))
        context.load_cert_chain(self.pki / 'client.pem')
        connection = socket.create_connection((self.address, PORT))
        with context.wrap_socket(connection, server_hostname=models.AMPHORA) as tls:
            return tls.getpeercert(binary_form=True)

    def _issue(self, name):
        certificate = (self.pki / 'ca_certificate.pem').read_bytes()
        key = (self.pki / 'ca_private_key.pem').read_bytes()
        return pki.issue(name, certificate, key)

    def _watch(self):
        """Notes each request, and uses the driver's wait before another attempt."""
        send = requests.adapters.HTTPAdapter.send

        def noting(adapter, request, **options):
            # Names of certificates are their SHA-1, and they are new in each run.
            target = re.sub('[0-9a-f]{40}', 'SHA1', request.path_url)
            try:
                response = send(adapter, request, **options)
            except requests.RequestException:
                self.requests.append([request.method, target, None])
                raise
            self.requests.append([request.method, target, response.status_code])
            return response

        def sleep(_seconds):
            act, self.on_retry = self.on_retry, None
            if act:
                act()

        requests.adapters.HTTPAdapter.send = noting
        rest_api_driver.time = types.SimpleNamespace(sleep=sleep)


NET_RULES = [{'protocol': 'TCP', 'cidr': None, 'port': 80},
             {'protocol': 'vrrp', 'cidr': '10.0.0.12/32', 'port': 112}]
BAD_RULE = {'protocol': 'HTTP', 'cidr': None, 'port': 80}

# Name, the driver's method if not all versions have it, the call. Each is made twice: Octavia
# repeats a request whose answer it did not get, so what has been done already must be harmless.
#
# These are the recorded calls (tests/vectors/rest_driver) without the last, 35 to 42. Those show
# what the driver makes of servers that answer as ours never does: with a 404 that is not JSON,
# version 0.5 or 1.1, 503, 418, the certificate of another amphora.
CALLS = [
    ('check_version_discovery', 'check', lambda c: c.driver.check(c.amphora())),
    ('get_info_boot_wait', None, Controller.boot_wait),
    ('post_vip_plug_nic_missing', None, Controller.plug_vip),
    ('post_vip_plug', None, Controller.plug_vip_of_new_nic),
    ('post_vip_plug_again_409', None, Controller.plug_vip),
    ('post_network_plug_new_nic', None, Controller.plug_member_of_new_nic),
    ('post_network_plug_existing', None, lambda c: c.plug_network(c.member_port())),
    ('post_network_plug_on_vip_port', None, lambda c: c.plug_network(models.vip_port())),
    ('get_interface_from_ip', None, lambda c: c.interface(models.VRRP_IP)),
    ('get_interface_from_ip_missing', None, lambda c: c.interface(models.UNKNOWN_IP)),
    ('update_listeners_tcp_and_udp', None, lambda c: c.update(c.tcp(), c.udp())),
    ('start', None, lambda c: c.driver.start(c.load_balancer(c.tcp(), c.udp()))),
    ('reload', 'reload', lambda c: c.driver.reload(c.load_balancer(c.tcp(), c.udp()))),
    ('update_listeners_tls', None, lambda c: c.update(c.tls())),
    ('update_listeners_tls_unchanged_certs', None, lambda c: c.update(c.tls())),
    ('update_listeners_haproxy_rejects', None, lambda c: c.update(c.tcp(timeout_client_data=-5))),
    ('update_listeners_systemctl_fails', None, Controller.update_while_failing),
    ('update_listeners_none', None, Controller.update),
    ('update_listeners_udp_only', None, lambda c: c.update(c.udp())),
    ('delete_udp_listener', None, lambda c: c.delete(c.udp())),
    ('delete_udp_listener_again', None, lambda c: c.delete(c.udp())),
    ('delete_tcp_listener_not_last', None, lambda c: c.delete(c.tcp(), c.tcp('b', 8023))),
    ('delete_last_tcp_listener', None, lambda c: c.delete(c.tcp())),
    ('delete_last_tls_listener', None, lambda c: c.delete(c.tls())),
    ('update_vrrp_conf', None, Controller.update_vrrp),
    ('start_vrrp', None, Controller.start_vrrp),
    ('reload_vrrp', None, lambda c: c.driver.reload_vrrp_service(c.load_balancer())),
    ('stop_vrrp', None, lambda c: c.driver.stop_vrrp_service(c.load_balancer())),
    ('update_agent_config', None, Controller.update_agent_config),
    ('set_interface_rules', 'set_interface_rules', lambda c: c.rules(models.VRRP_IP, *NET_RULES)),
    ('set_interface_rules_unknown_ip', 'set_interface_rules',
     lambda c: c.rules(models.UNKNOWN_IP, *NET_RULES)),
    ('set_interface_rules_bad', 'set_interface_rules', lambda c: c.rules(models.VRRP_IP, BAD_RULE)),
    ('rotate_cert', None, Controller.rotate),
    ('check_after_rotation', None, Controller.info),

    # Beyond the recorded ones.
    ('post_network_plug_late_nic', None, Controller.plug_member_of_late_nic),
    ('update_listeners_10000_members', None, lambda c: c.update(c.many())),
    ('refused_without_certificate', None, lambda c: c.stranger(None)),
    ('refused_other_ca', None, lambda c: c.stranger('other_ca.pem')),
    ('refused_expired', None, lambda c: c.stranger('expired.pem')),
    ('refused_server_auth', None, lambda c: c.stranger('server_auth.pem')),
    ('get_info_after_refusals', None, Controller.info),
    ('get_info_server_down_at_first', None, Controller.info_when_down_at_first),
    ('update_listeners_after_restart', None, Controller.restart_between),
]


def outcome(controller, method, call):
    """What came of one call, without what differs from run to run."""
    if method and not hasattr(controller.driver, method):
        return {'skipped': f'this driver has no {method}'}
    controller.requests.clear()
    controller.on_retry = None
    try:
        result = {'returned': call(controller)}
    except Exception as error:  # whatever the driver raises is its answer
        result = {'raised': f'{type(error).__name__}: {error}'}
    return {**result, 'requests': list(controller.requests)}


def configure(options):
    """Sets what an operator would have set for the controller and for its amphorae."""
    options.control.mkdir(parents=True)
    shutil.copy(options.pki / 'server.pem', options.work)
    base = options.work / 'octavia'
    base.mkdir()
    for option, value in {
            'haproxy_amphora.base_path': base,
            'haproxy_amphora.base_cert_dir': base / 'certs',
            'haproxy_amphora.bind_host': options.address,
            'haproxy_amphora.bind_port': PORT,
            'haproxy_amphora.client_cert': options.pki / 'client.pem',
            'haproxy_amphora.server_ca': options.pki / 'server_ca.pem',
            'haproxy_amphora.connection_max_retries': ATTEMPTS,
            'amphora_agent.agent_server_cert': options.work / 'server.pem',
            'amphora_agent.agent_server_ca': options.pki / 'client_ca.pem',
            'amphora_agent.agent_server_network_dir': options.work / 'interfaces',
            'amphora_agent.amphora_id': models.AMPHORA,
            'health_manager.heartbeat_key': 'insecure',
            'health_manager.controller_ip_port_list': ['192.0.2.5:5555'],
            'certificates.cert_manager': 'local_cert_manager'}.items():
        group, name = option.split('.')
        value = str(value) if isinstance(value, pathlib.Path) else value
        CONF.set_override(name, value, group=group)
    options.config.write_text(agent_config())


def agent_config():
    """amphora-agent.conf as the controller writes it for a new amphora."""
    return agent_jinja_cfg.AgentJinjaTemplater().build_agent_config(models.AMPHORA, 'SINGLE')


def absolute(path):
    return pathlib.Path(path).resolve()


def main():
    parser = argparse.ArgumentParser(description="Octavia's REST driver against an amphora agent.")
    parser.add_argument('--pki', type=absolute, required=True)
    parser.add_argument('--work', type=absolute, required=True)
    parser.add_argument('--address', required=True)
    parser.add_argument('command', nargs='+')
    options = parser.parse_args()
    options.config = options.work / 'amphora-agent.conf'
    options.control = options.work / 'control'
    log.register_options(CONF)  # the agent's configuration repeats some
    CONF([], project='octavia', default_config_files=[])
    logging.disable(logging.WARNING)
    configure(options)

    machine = Machine(options.control)
    command = [*options.command, '--config', str(options.config), '--control', str(options.control)]
    server = Server(command)
    server.start()
    try:
        controller = Controller(options, server, machine)
        for name, method, call in CALLS:
            for name_of_turn in (name, f'{name}, repeated'):
                line = {'call': name_of_turn, **outcome(controller, method, call)}
                print(json.dumps(line), flush=True)
    finally:
        server.stop()


if __name__ == '__main__':
    main()
