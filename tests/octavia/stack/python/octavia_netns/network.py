"""A network driver whose networks are Linux bridges: a stand-in for Neutron.

There are no security groups and no QoS policies."""

from octavia.common import constants
from octavia.common import data_models
from octavia.network import base
from octavia.network import data_models as network_models
from oslo_config import cfg
from oslo_log import log as logging
from stevedore import driver as stevedore_driver

from octavia_netns import config  # noqa: F401  registers the options
from octavia_netns import ports
from octavia_netns import topology

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


def _only(found, what, error):
    if len(found) != 1:
        raise error(f'{len(found)} instead of one {what}')
    return found[0]


class NetnsNetworkDriver(base.AbstractNetworkDriver):
    sec_grp_enabled = False

    def __init__(self):
        self._topology = topology.Topology(CONF.netns.topology)
        self._ports = ports.Ports(CONF.netns.database, self._topology)
        self._compute = stevedore_driver.DriverManager(
            namespace='octavia.compute.drivers',
            name=CONF.controller_worker.compute_driver,
            invoke_on_load=True).driver

    # Networks and subnets

    def get_network(self, network_id, context=None):
        if network_id not in self._topology.networks:
            raise base.NetworkNotFound(f'no network {network_id}')
        return self._topology.networks[network_id]

    def get_network_by_name(self, network_name):
        return _only([network for network in self._topology.networks.values()
                      if network.name == network_name],
                     f'network {network_name}', base.NetworkNotFound)

    def get_subnet(self, subnet_id, context=None):
        if subnet_id not in self._topology.subnets:
            raise base.SubnetNotFound(f'no subnet {subnet_id}')
        return self._topology.subnets[subnet_id]

    def get_subnet_by_name(self, subnet_name):
        return _only([subnet for subnet in self._topology.subnets.values()
                      if subnet.name == subnet_name],
                     f'subnet {subnet_name}', base.SubnetNotFound)

    def get_network_ip_availability(self, network):
        return network_models.Network_IP_Availability(
            network_id=network.id,
            subnet_ip_availability=[
                {'subnet_id': subnet_id, 'used_ips': 0, 'total_ips': 100}
                for subnet_id in network.subnets])

    # Ports

    def get_port(self, port_id, context=None):
        return self._ports.get(port_id)

    def get_port_by_name(self, port_name):
        return _only(self._ports.find(name=port_name), f'port {port_name}',
                     base.PortNotFound)

    def get_port_by_net_id_device_id(self, network_id, device_id):
        return _only(self._ports.find(network_id=network_id,
                                      device_id=device_id),
                     f'port of {device_id}', base.PortNotFound)

    def create_port(self, network_id, name=None, fixed_ips=(),
                    secondary_ips=(), security_group_ids=(),
                    admin_state_up=True, qos_policy_id=None,
                    # 11 has no constants.VNIC_TYPE_NORMAL, and passes none.
                    vnic_type='normal'):
        return self._ports.create(
            network_id, name or '',
            [(fixed_ip['subnet_id'], fixed_ip.get('ip_address'))
             for fixed_ip in fixed_ips],
            admin_state_up=admin_state_up)

    def delete_port(self, port_id):
        for port in self._ports.find(id=port_id):
            if port.device_id:
                self._compute.detach_port(port.device_id, port.id)
            self._ports.delete(port.id)

    def set_port_admin_state_up(self, port_id, state):
        port = self._ports.get(port_id)
        self._ports.update(port.id, admin_state_up=state)
        if port.device_id:
            self._compute.set_link_state(port, state)

    def plug_fixed_ip(self, port_id, subnet_id, ip_address=None):
        self._ports.add_fixed_ip(port_id, subnet_id, ip_address)
        return self._ports.get(port_id)

    def unplug_fixed_ip(self, port_id, subnet_id):
        self._ports.remove_fixed_ip(port_id, subnet_id)
        return self._ports.get(port_id)

    # The VIP, a port that is never plugged: the amphorae answer for its
    # addresses on ports of their own

    def allocate_vip(self, load_balancer):
        vip = load_balancer.vip
        if vip.port_id:
            try:
                return self._port_to_vip(self._ports.get(vip.port_id),
                                         load_balancer)
            except base.PortNotFound:
                LOG.warning('VIP port %s is gone, rebuilding', vip.port_id)
        wanted = [(vip.subnet_id, vip.ip_address)]
        wanted += [(additional.subnet_id, additional.ip_address)
                   for additional in load_balancer.additional_vips]
        port = self._ports.create(
            vip.network_id, f'octavia-lb-{load_balancer.id}', wanted,
            device_id=f'lb-{load_balancer.id}', admin_state_up=False)
        return self._port_to_vip(port, load_balancer, octavia_owned=True)

    @staticmethod
    def _port_to_vip(port, load_balancer, octavia_owned=False):
        first, *others = sorted(
            port.fixed_ips,
            key=lambda ip: ip.subnet_id != load_balancer.vip.subnet_id)
        vip = data_models.Vip(
            network_id=port.network_id, port_id=port.id,
            subnet_id=first.subnet_id, ip_address=first.ip_address,
            load_balancer=load_balancer, load_balancer_id=load_balancer.id,
            octavia_owned=octavia_owned)
        # 11 has no security groups of the tenant's on a VIP where 19 has.
        if hasattr(vip, 'sg_ids'):
            vip.sg_ids = load_balancer.vip.sg_ids
        return vip, [
            data_models.AdditionalVip(
                network_id=port.network_id, port_id=port.id,
                subnet_id=ip.subnet_id, ip_address=ip.ip_address,
                load_balancer=load_balancer, load_balancer_id=load_balancer.id)
            for ip in others]

    def deallocate_vip(self, vip):
        for amphora in vip.load_balancer.amphorae:
            self.delete_port(amphora.vrrp_port_id)
        for port in self._ports.find(id=vip.port_id):
            if port.device_owner == ports.OCTAVIA_OWNER:
                self._ports.delete(port.id)

    # Plugging

    def get_plugged_networks(self, compute_id):
        return [network_models.Interface(
            compute_id=compute_id, network_id=port.network_id,
            port_id=port.id, fixed_ips=port.fixed_ips)
            for port in self._ports.find(device_id=compute_id)]

    def plug_port(self, amphora, port):
        return self._compute.attach_network_or_port(amphora.compute_id,
                                                    port_id=port.id)

    def plug_network(self, compute_id, network_id):
        """11 has this for a member's network where 19 has create_port and
        plug_port."""
        return self._compute.attach_network_or_port(compute_id,
                                                    network_id=network_id)

    def unplug_network(self, compute_id, network_id):
        for port in self._ports.find(device_id=compute_id,
                                     network_id=network_id):
            self._compute.detach_port(compute_id, port.id)

    def plug_aap_port(self, load_balancer, vip, amphora, subnet):
        found = self._ports.find(device_id=amphora.compute_id,
                                 network_id=subnet.network_id)
        if found:
            port = found[0]
        else:
            port = self._ports.create(subnet.network_id,
                                      f'octavia-lb-vrrp-{amphora.id}',
                                      [(subnet.id, None)])
            self.plug_port(amphora, port)
        return data_models.Amphora(
            id=amphora.id, compute_id=amphora.compute_id,
            vrrp_ip=port.fixed_ips[0].ip_address, ha_ip=vip.ip_address,
            vrrp_port_id=port.id, ha_port_id=vip.port_id)

    def unplug_aap_port(self, vip, amphora, subnet):
        self.unplug_network(amphora.compute_id, subnet.network_id)
        self.delete_port(amphora.vrrp_port_id)

    def plug_vip(self, load_balancer, vip):
        """11 demands it, but calls plug_aap_port as 19 does."""
        raise NotImplementedError

    def unplug_vip(self, load_balancer, vip):
        subnet = self.get_subnet(vip.subnet_id)
        for amphora in load_balancer.amphorae:
            if amphora.status == constants.AMPHORA_ALLOCATED:
                self.unplug_aap_port(vip, amphora, subnet)

    def get_network_configs(self, load_balancer, amphora=None):
        amphorae = [amphora] if amphora else load_balancer.amphorae
        return {amphora.id: self._network_config(load_balancer, amphora)
                for amphora in amphorae
                if amphora.status != constants.DELETED}

    def _network_config(self, load_balancer, amphora):
        vrrp_port = self.get_port(amphora.vrrp_port_id)
        vrrp_port.network = self.get_network(vrrp_port.network_id)
        ha_port = self.get_port(amphora.ha_port_id)
        return network_models.AmphoraNetworkConfig(
            amphora=amphora,
            vip_subnet=self.get_subnet(load_balancer.vip.subnet_id),
            vip_port=self.get_port(load_balancer.vip.port_id),
            vrrp_subnet=self.get_subnet(
                vrrp_port.get_subnet_id(amphora.vrrp_ip)),
            vrrp_port=vrrp_port,
            ha_subnet=self.get_subnet(ha_port.get_subnet_id(amphora.ha_ip)),
            ha_port=ha_port,
            additional_vip_data=[
                network_models.AdditionalVipData(
                    ip_address=additional.ip_address,
                    subnet=self.get_subnet(additional.subnet_id))
                for additional in load_balancer.additional_vips])

    def update_vip(self, load_balancer, for_delete=False):
        """11's base class has no default for for_delete where 19's has; its
        flows call it without. Nothing to do: no security group has rules."""

    def failover_preparation(self, amphora):
        pass

    def wait_for_port_detach(self, amphora):
        """11 demands it where 19 does not; neither calls it."""

    # Security groups and QoS: none

    def get_security_group(self, sg_name):
        return None

    def get_security_group_by_id(self, sg_id, context=None):
        raise base.SecurityGroupNotFound(f'no security group {sg_id}')

    def update_vip_sg(self, load_balancer, vip):
        return None

    def update_aap_port_sg(self, load_balancer, amphora, vip):
        pass

    def qos_enabled(self):
        return False

    def get_qos_policy(self, qos_policy_id, context=None):
        raise base.QosPolicyNotFound(f'no QoS policy {qos_policy_id}')

    def apply_qos_on_port(self, qos_id, port_id):
        pass
