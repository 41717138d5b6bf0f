"""A compute driver whose amphorae are containers: a stand-in for Nova.

An amphora is a container booted by nsboot: a real systemd on a copy-on-write
view of this machine's own file system, plus the files of its image, plus those
of Octavia's config drive.  It runs as the systemd unit amphora-<ID>, in the
network namespace of that name, to which interfaces can be plugged at any
time."""

import ipaddress
import os
import shutil
import subprocess
import typing

from octavia.common import constants
from octavia.common import data_models
from octavia.common import exceptions
from octavia.compute import compute_base
from octavia.network import data_models as network_models
from oslo_config import cfg
from oslo_log import log as logging

from octavia_netns import config  # noqa: F401  registers the options
from octavia_netns import ports
from octavia_netns import topology

CONF = cfg.CONF
LOG = logging.getLogger(__name__)

_SEEDS = '/run/octavia-netns'
_OWNER = 'compute:netns'  # of the ports that go when the amphora goes


class ServerGroup(typing.NamedTuple):
    id: str


def _run(*command):
    LOG.debug('Running %s', ' '.join(command))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise exceptions.ComputeUnknownException(
            exc=f'{" ".join(command)}: {done.stderr.strip()}')
    return done.stdout


def _succeeds(*command):
    return not subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def _write(root, path, content):
    path = os.path.join(root, path.lstrip('/'))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(content)


def _name(compute_id):
    return f'amphora-{compute_id}'


def _log(compute_id):
    return os.path.join(CONF.netns.logs, f'{_name(compute_id)}.log')


def _tap(port):
    """The bridge's end of the veth pair that is the port."""
    return f'tap{port.id[:11]}'


class NetnsComputeDriver(compute_base.ComputeBase):
    def __init__(self):
        self._topology = topology.Topology(CONF.netns.topology)
        self._ports = ports.Ports(CONF.netns.database, self._topology)

    def build(self, name='amphora_name', amphora_flavor=None, image_tag=None,
              image_owner=None, key_name=None, sec_groups=None,
              network_ids=None, config_drive_files=None, user_data=None,
              port_ids=None, server_group_id=None, availability_zone=None):
        compute_id = name.removeprefix('amphora-')
        try:
            self._build(compute_id, image_tag, network_ids or [],
                        port_ids or [], config_drive_files or {})
        except Exception as error:
            LOG.exception('Failed to build %s', name)
            self.delete(compute_id)
            raise exceptions.ComputeBuildException(fault=error)
        return compute_id

    def _build(self, compute_id, image_tag, network_ids, port_ids, files):
        name = _name(compute_id)
        image = os.path.join(CONF.netns.images, image_tag)
        if not os.path.isdir(image):
            raise exceptions.ImageGetException(tag=image_tag)
        config_drive = os.path.join(_SEEDS, name)
        for path, content in files.items():
            _write(config_drive, path, content)

        _run('ip', 'netns', 'add', name)
        _run('ip', '-netns', name, 'link', 'set', 'lo', 'up')
        for network_id in network_ids:
            port = self._ports.create(network_id, name, device_owner=_OWNER)
            self._plug(compute_id, port)
            self._configure(compute_id, port)
        for port_id in port_ids:
            self._plug(compute_id, self._ports.get(port_id))
        common = os.path.join(CONF.netns.images, 'common')
        _run('systemd-run', f'--unit={name}', '--collect',
             '--property=Delegate=yes', '--property=KillSignal=SIGKILL',
             f'--property=NetworkNamespacePath=/run/netns/{name}',
             f'--property=StandardError=append:{_log(compute_id)}',
             CONF.netns.nsboot, name, f'/={common}:{image}:{config_drive}')

    def _plug(self, compute_id, port):
        """Makes the port's interface appear in the amphora, like a hot plug:
        down, without an address, and under a name of the kernel's choice."""
        tap = _tap(port)
        interface = self._interface(port)
        mtu = str(self._topology.networks[port.network_id].mtu)
        _run('ip', 'link', 'add', tap, 'mtu', mtu, 'type', 'veth',
             'peer', 'name', interface, 'mtu', mtu,
             'address', port.mac_address, 'netns', _name(compute_id))
        self._prepare_for_xdp(compute_id, tap, interface)
        _run('ip', 'link', 'set', tap,
             'master', self._topology.bridge(port.network_id),
             'up' if port.admin_state_up else 'down')
        self._ports.update(port.id, device_id=compute_id)

    @staticmethod
    def _prepare_for_xdp(compute_id, tap, interface):
        """What a virtio interface has by itself and a veth has not: whole
        checksums, and a far end that is woken for frames that native XDP sends
        (veth_xdp_flush in drivers/net/veth.c: one with a program is)."""
        _run('ethtool', '--offload', tap, 'tx', 'off')
        _run('ip', 'netns', 'exec', _name(compute_id),
             'ethtool', '--offload', interface, 'tx', 'off')
        _run('ip', 'link', 'set', 'dev', tap, 'xdpdrv', 'pinned',
             CONF.netns.pass_program)

    def _configure(self, compute_id, port):
        """What the operating system of a real amphora does with DHCP."""
        ip = ('ip', '-netns', _name(compute_id))
        interface = self._interface(port)
        for fixed_ip in port.fixed_ips:
            subnet = self._topology.subnets[fixed_ip.subnet_id]
            prefix = ipaddress.ip_network(subnet.cidr).prefixlen
            _run(*ip, 'address', 'add', f'{fixed_ip.ip_address}/{prefix}',
                 'dev', interface)
        _run(*ip, 'link', 'set', interface, 'up')

    @staticmethod
    def _interface(port):
        """Unlike the "eth1" Octavia wants in the end, and never the same."""
        return 'ens' + port.mac_address.replace(':', '')[-4:]

    def delete(self, compute_id):
        """Does nothing where there is no such amphora."""
        name = _name(compute_id)
        if _succeeds('systemctl', 'is-active', '--quiet', name):
            _run('systemctl', 'stop', name)
        if os.path.exists(f'/run/netns/{name}'):
            _run('ip', 'netns', 'delete', name)
        for port in self._ports.find(device_id=compute_id):
            self._unplug(port)
            if port.device_owner == _OWNER:
                self._ports.delete(port.id)
        shutil.rmtree(os.path.join(_SEEDS, name), ignore_errors=True)

    def status(self, compute_id):
        active = _succeeds('systemctl', 'is-active', '--quiet',
                           _name(compute_id))
        return constants.UP if active else constants.DOWN

    def get_amphora(self, compute_id, management_network_id=None):
        if self.status(compute_id) != constants.UP:
            return (data_models.Amphora(compute_id=compute_id,
                                        status=constants.ERROR),
                    f'{_name(compute_id)} is not running: see '
                    f'{_log(compute_id)}')
        networks = ([management_network_id] if management_network_id
                    else CONF.controller_worker.amp_boot_network_list)
        port = self._ports.find(device_id=compute_id,
                                network_id=networks[0])[0]
        return data_models.Amphora(
            compute_id=compute_id, status=constants.ACTIVE,
            lb_network_ip=port.fixed_ips[0].ip_address), None

    def attach_network_or_port(self, compute_id, network_id=None,
                               ip_address=None, port_id=None):
        if port_id:
            port = self._ports.get(port_id)
        else:
            subnet_id = self._topology.networks[network_id].subnets[0]
            port = self._ports.create(network_id, _name(compute_id),
                                      [(subnet_id, ip_address)],
                                      device_owner=_OWNER)
        if port.device_id not in ('', compute_id):
            raise exceptions.ComputePortInUseException(port=port.id)
        if not port.device_id:
            self._plug(compute_id, port)
        return network_models.Interface(
            compute_id=compute_id, network_id=port.network_id,
            port_id=port.id, fixed_ips=port.fixed_ips)

    def detach_port(self, compute_id, port_id):
        self._unplug(self._ports.get(port_id))

    def _unplug(self, port):
        tap = _tap(port)
        # It goes by itself, some time after the namespace of its other end.
        _succeeds('ip', 'link', 'delete', tap)
        if os.path.exists(f'/sys/class/net/{tap}'):
            raise exceptions.ComputeUnknownException(
                exc=f'interface {tap} cannot be deleted')
        self._ports.update(port.id, device_id='')

    def set_link_state(self, port, up):
        """Pulls the cable of a plugged port, or puts it back."""
        _run('ip', 'link', 'set', _tap(port), 'up' if up else 'down')

    def create_server_group(self, name, policy):
        return ServerGroup(id=name)

    def delete_server_group(self, server_group_id):
        pass

    def validate_flavor(self, flavor_id):
        pass

    def validate_availability_zone(self, availability_zone):
        pass
