"""Octavia's own amphora agent over mutual TLS, with nothing faked but the machine below it.

    stock_agent.py --config AMPHORA_AGENT_CONF --control DIRECTORY

Octavia's Flask application in gunicorn, set up as `octavia.cmd.agent` does it; `haproxy -c` is the
haproxy at hand, systemctl, netlink and the namespace are pretended. Prints `ready PORT` when it
listens. Expects Octavia 19.0.0. Not part of any test: it makes the expectations, see driver.py.

DIRECTORY tells what happens on the machine, and is read at every request:

    nics.json   {"host": {MAC: NAME}, "addresses": {ADDRESS: NAME}}: NICs that have been plugged in,
                addresses of those that the agent has moved into its namespace
    fail        present: units are neither started nor reloaded; systemctl says what is in here
"""

import argparse
import collections
import json
import pathlib
import queue
import ssl
import subprocess
from unittest import mock

import gunicorn.app.base
from oslo_config import cfg
from oslo_log import log

from octavia.amphorae.backends.agent.api_server import amphora_info
from octavia.amphorae.backends.agent.api_server import server
from octavia.amphorae.backends.utils import ip_advertisement
from octavia.amphorae.backends.utils import network_namespace
from octavia.common import config as _registers_options  # noqa: F401
from octavia.common import constants
from octavia.common import utils

CONF = cfg.CONF

VERSIONS = {'haproxy': '2.6.12-1+deb12u2', 'keepalived': '1:2.2.7-1+b2', 'ipvsadm': '1:1.31-1+b1'}

APPLY = [['systemctl', verb] for verb in ('start', 'restart', 'reload')]


class Machine:
    """What the agent sees of the machine."""

    def __init__(self, control):
        self.control = control
        self.moved = {}  # MAC to name, in the namespace

    def host(self):
        return Links({mac: name for mac, name in self._nics()['host'].items()
                      if mac not in self.moved}, self)

    def namespace(self):
        return Links(self.moved, self)

    def addresses(self):
        return self._nics()['addresses']

    def check_output(self, command, **options):
        """subprocess.check_output"""
        fail = self.control / 'fail'
        if command[0] == 'haproxy':
            return REAL_CHECK_OUTPUT(command, **options)
        if command[0] == 'dpkg-query':
            out = VERSIONS[command[-1]]
        elif command[:2] in APPLY and fail.exists():
            out = fail.read_text()
            out = out if options.get('encoding') else out.encode()
            raise subprocess.CalledProcessError(1, command, out)
        else:
            out = ''
        return out if options.get('encoding') else out.encode()

    def _nics(self):
        return json.loads((self.control / 'nics.json').read_text())


class Links:
    """As much of pyroute2's IPRoute and NetNS as the agent asks for."""

    def __init__(self, links, machine):
        self.links = links
        self.machine = machine

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def link_lookup(self, address=None, ifname=None):
        return [index for index, (mac, name) in enumerate(self.links.items())
                if address == mac or ifname == name]

    def get_links(self, index=None):
        links = [{'attrs': [('IFLA_IFNAME', name), ('IFLA_ADDRESS', mac),
                            ('IFLA_STATS64', {'tx_bytes': 0, 'rx_bytes': 0})]}
                 for mac, name in self.links.items()]
        return links if index is None else [links[index]]

    def get_addr(self, address=None):
        names = list(self.links.values())
        return [{'index': names.index(name), 'attrs': [('IFA_ADDRESS', own)]}
                for own, name in self.machine.addresses().items()
                if own == address and name in names]

    def link(self, _command, index=None, IFLA_IFNAME=None, **_rest):  # noqa: N803
        """Moves a NIC of the host into the namespace under its new name."""
        self.machine.moved[list(self.links)[index]] = IFLA_IFNAME


class Namespace:
    """Octavia's NetworkNamespace, entered by nobody."""

    def __init__(self, _name):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


class Agent(gunicorn.app.base.BaseApplication):
    def __init__(self, application, **settings):
        self.application = application
        self.settings = settings
        super().__init__()

    def load_config(self):
        for name, value in self.settings.items():
            self.cfg.set(name, value)

    def load(self):
        return self.application


REAL_CHECK_OUTPUT = subprocess.check_output


def pretend(machine, config):
    """Puts `machine` in the place of the real one."""
    folder = config.parent / 'stock'
    folder.mkdir(exist_ok=True)
    constants.SYSTEMD_DIR = str(folder)
    constants.PLUGGED_INTERFACES = str(folder / 'plugged_interfaces')
    constants.NFT_RULES_FILE = str(folder / 'nftables-vip.rules')
    constants.HAPROXY_USER_GROUP_CFG = str(folder / 'haproxy-default-user-group.conf')
    pathlib.Path(constants.HAPROXY_USER_GROUP_CFG).write_text('global\n    group nogroup\n')
    for target, stand_in in {
            'subprocess.check_output': machine.check_output,
            'pyroute2.IPRoute': machine.host,
            'pyroute2.NetNS': lambda *_, **__: machine.namespace(),
            'distro.id': lambda: 'debian',
            'oslo_config.cfg.find_config_files': lambda **_: [str(config)]}.items():
        mock.patch(target, stand_in).start()
    # By the memory that is free the controller sizes HAProxy's session cache, up to gigabytes.
    memory = collections.defaultdict(int)
    mock.patch.object(amphora_info.AmphoraInfo, '_get_meminfo', lambda _: memory).start()
    mock.patch.object(network_namespace, 'NetworkNamespace', Namespace).start()
    mock.patch.object(ip_advertisement, 'send_ip_advertisement').start()


def main():
    parser = argparse.ArgumentParser(description="Octavia's own amphora agent.")
    parser.add_argument('--config', type=pathlib.Path, required=True)
    parser.add_argument('--control', type=pathlib.Path, required=True)
    options = parser.parse_args()
    log.register_options(CONF)
    CONF(['--config-file', str(options.config)], project='octavia', prog='amphora-agent')
    pretend(Machine(options.control), options.config)

    host, port = CONF.haproxy_amphora.bind_host, CONF.haproxy_amphora.bind_port
    Agent(server.Server(queue.SimpleQueue()).app,
          bind=utils.ip_port_str(host, port), workers=1, preload_app=True, loglevel='error',
          certfile=CONF.amphora_agent.agent_server_cert,
          ca_certs=CONF.amphora_agent.agent_server_ca, cert_reqs=ssl.CERT_REQUIRED,
          when_ready=lambda _: print('ready', port, flush=True)).run()


if __name__ == '__main__':
    main()
