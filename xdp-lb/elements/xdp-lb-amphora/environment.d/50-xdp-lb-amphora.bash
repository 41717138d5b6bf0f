# shellcheck shell=bash
# Nova's config drive brings the agent's configuration, its certificates, and the management network.
export DIB_CLOUD_INIT_DATASOURCES=${DIB_CLOUD_INIT_DATASOURCES:-ConfigDrive}
# systemd-networkd does what cloud-init finds there. Other interfaces are the agent's: ifupdown would
# wait for an eth1 at each boot.
export DIB_APT_MINIMAL_CREATE_INTERFACES=0
# As in Octavia's diskimage-create.sh.
export DIB_OCTAVIA_AMP_USE_SSH=${DIB_OCTAVIA_AMP_USE_SSH:-True}
export DIB_GRUB_TIMEOUT=${DIB_GRUB_TIMEOUT:-0}
