"""The [netns] section of octavia.conf."""

from oslo_config import cfg

OPTIONS = [
    cfg.StrOpt('topology', default='/etc/octavia/topology.json',
               help='The networks and subnets that exist.'),
    cfg.StrOpt('database', default='/var/lib/octavia/netns.db',
               help='Where the ports are kept, shared by all services.'),
    cfg.StrOpt('images', default='/etc/octavia/images',
               help='One directory for each amphora image tag, and "common".'),
    cfg.StrOpt('nsboot', default='nsboot',
               help='The command that boots a container.'),
    cfg.StrOpt('pass_program', default='/sys/fs/bpf/pass',
               help='A pinned XDP program that passes everything, for the far '
                    'ends of interfaces.'),
    cfg.StrOpt('logs', default='/var/log',
               help='Where it writes amphora-<ID>.log if it cannot.'),
]

cfg.CONF.register_opts(OPTIONS, group='netns')
