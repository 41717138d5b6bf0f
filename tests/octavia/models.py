"""What Octavia's database would say, as its data models; the same for every version of Octavia."""

import inspect
import uuid

from octavia.common import data_models
from octavia.network import data_models as network

ROOT = uuid.UUID('5b0c1f1e-0000-4000-8000-000000000000')


def named(name):
    """The UUID that stands for `name` in all runs."""
    return str(uuid.uuid5(ROOT, name))


AMPHORA = named('amphora-1')
PROJECT = named('project')

VIP = '10.0.0.10'
VRRP_IP = '10.0.0.11'
UNKNOWN_IP = '10.99.0.1'
MEMBER_IP = '10.1.0.5'
VIP_MAC = 'fa:16:3e:00:00:01'
MEMBER_MAC = 'fa:16:3e:00:00:02'
LATE_MAC = 'fa:16:3e:00:00:03'


def make(kind, **fields):
    """A `kind` with those of `fields` that this version of Octavia knows."""
    known = inspect.signature(kind.__init__).parameters
    return kind(**{name: value for name, value in fields.items() if name in known})


def load_balancer(lb_network_ip, *listeners, topology='SINGLE'):
    """One amphora, and `listeners` as `listener` makes them."""
    amphora = make(
        data_models.Amphora, id=AMPHORA, status='ALLOCATED', lb_network_ip=lb_network_ip,
        vrrp_ip=VRRP_IP, ha_ip=VIP, vrrp_port_id=named('vip-port'), ha_port_id=named('ha-port'),
        role='MASTER' if topology == 'ACTIVE_STANDBY' else 'STANDALONE', vrrp_interface='eth1',
        vrrp_id=1, vrrp_priority=100)
    vrrp_group = make(data_models.VRRPGroup, vrrp_group_name='g', vrrp_auth_type='PASS',
                      vrrp_auth_pass='1234567', advert_int=1)
    whole = make(
        data_models.LoadBalancer, id=named('lb'), project_id=PROJECT, enabled=True,
        topology=topology, vip=make(data_models.Vip, ip_address=VIP, vnic_type='normal'),
        amphorae=[amphora], listeners=list(listeners), vrrp_group=vrrp_group)
    for listener in listeners:
        listener.load_balancer = whole
        listener.default_pool.load_balancer = whole
    whole.pools = list({each.default_pool.id: each.default_pool for each in listeners}.values())
    return whole


def listener(name, protocol, port, pool, **fields):
    return make(
        data_models.Listener, **{
            'id': named(f'listener-{name}'), 'project_id': PROJECT, 'protocol': protocol,
            'protocol_port': port, 'enabled': True, 'provisioning_status': 'ACTIVE',
            'connection_limit': -1, 'default_pool': pool, 'default_pool_id': pool.id,
            'pools': [pool], 'insert_headers': {}, 'peer_port': 1025,
            'client_authentication': 'NONE', **fields})


def pool(name, protocol, members=2, health_monitor=None):
    return make(
        data_models.Pool, id=named(f'pool-{name}'), project_id=PROJECT, protocol=protocol,
        lb_algorithm='ROUND_ROBIN', enabled=True, operating_status='ONLINE',
        provisioning_status='ACTIVE', tls_enabled=False, health_monitor=health_monitor,
        members=[member(f'{name}-{index}', index) for index in range(members)])


def member(name, index):
    return make(
        data_models.Member, id=named(f'member-{name}'), project_id=PROJECT,
        ip_address=f'10.1.{1 + index // 250}.{1 + index % 250}', protocol_port=8080, weight=1,
        backup=False, enabled=True, operating_status='NO_MONITOR', provisioning_status='ACTIVE')


def tcp_monitor(name):
    return make(
        data_models.HealthMonitor, id=named(f'monitor-{name}'), type='TCP', delay=5, timeout=4,
        fall_threshold=3, rise_threshold=2, enabled=True, provisioning_status='ACTIVE')


def sni(reference):
    return make(data_models.SNI, tls_container_id=reference)


def vip_subnet():
    route = make(network.HostRoute, destination='172.16.0.0/12', nexthop='10.0.0.254')
    return subnet('10.0.0.0/24', '10.0.0.1', route)


def subnet(cidr, gateway, *routes):
    return make(network.Subnet, cidr=cidr, gateway_ip=gateway, host_routes=list(routes))


def vip_port():
    return port('vip-port', VIP_MAC, 1450, VRRP_IP, vip_subnet())


def port(name, mac, mtu, address, on):
    return make(
        network.Port, id=named(name), mac_address=mac, vnic_type='normal',
        network=make(network.Network, mtu=mtu),
        fixed_ips=[make(network.FixedIP, ip_address=address, subnet=on)])


def network_config(amphora):
    """Per amphora what the network driver knows, as the driver of 4.1 wants it."""
    return {amphora.id: make(network.AmphoraNetworkConfig, amphora=amphora,
                             vip_subnet=vip_subnet(), vrrp_port=vip_port())}


def additional_vip():
    """IPv6 beside the IPv4 VIP; only for versions that know such."""
    return make(network.AdditionalVipData, ip_address='2001:db8::10',
                subnet=subnet('2001:db8::/64', '2001:db8::1'))
