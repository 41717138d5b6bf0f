//! What netlink, ethtool and sysfs know of the interfaces of this thread's network namespace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ethtool::{EthtoolAttr, EthtoolChannelAttr, EthtoolFeatureAttr, EthtoolHandle};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

use super::interfaces::{Channels, Count, Cpus, Interface};
use crate::net::watch::mode;

/// All that are Ethernet, by their indexes. Must be called from a tokio runtime.
pub async fn interfaces() -> Result<Vec<Interface>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("netlink: {error}");
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let messages = handle.link().get().execute().try_collect::<Vec<_>>().await;
    let messages = messages.map_err(|error| failed(&error))?;
    let (connection, mut ethtool, _) = ethtool::new_connection().map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let mut interfaces = Vec::new();
    for message in messages {
        if message.header.link_layer_type == LinkLayerType::Ether {
            let mut interface = interface(message);
            // A driver that has none of either is no error.
            interface.channels = channels(&mut ethtool, &interface.name).await;
            interface.offloads = offloads(&mut ethtool, &interface.name).await.unwrap_or_default();
            interfaces.push(interface);
        }
    }
    Ok(interfaces)
}

fn interface(message: LinkMessage) -> Interface {
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
    let mut interface = Interface { up, ..Interface::default() };
    let (mut bus, mut device) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::Xdp(facts) => interface.xdp = facts.iter().find_map(mode),
            LinkAttribute::LinkInfo(facts) => {
                interface.driver = facts.iter().find_map(|fact| match fact {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            LinkAttribute::ParentDevName(name) => device = Some(name),
            _ => {}
        }
    }
    // sysfs shows the interfaces of the namespace that it was mounted in, but all devices.
    if let (Some(bus), Some(device)) = (bus, device) {
        let device = Path::new("/sys/bus").join(&bus).join("devices").join(device);
        let driver = fs::read_link(device.join("driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        interface.driver = driver.map(|it| it.to_string_lossy().into_owned());
        if bus == "virtio" {
            let features = fs::read_to_string(device.join("features")).ok();
            interface.virtio = features.map(|text| features_of(&text));
        }
    }
    interface
}

/// A character for each bit, the lowest first.
fn features_of(text: &str) -> u64 {
    let set = text.trim().bytes().take(64).enumerate().filter(|(_, byte)| *byte == b'1');
    set.fold(0, |features, (bit, _)| features | (1 << bit))
}

async fn channels(ethtool: &mut EthtoolHandle, interface: &str) -> Option<Channels> {
    let asked = ethtool.channel().get(Some(interface)).execute().await.ok()?;
    let messages = asked.try_collect::<Vec<_>>().await.ok()?;
    let mut channels = Channels::default();
    for attribute in messages.into_iter().flat_map(|message| message.payload.nlas) {
        let EthtoolAttr::Channel(attribute) = attribute else { continue };
        match attribute {
            EthtoolChannelAttr::RxMax(max) => channels.rx.max = max,
            EthtoolChannelAttr::TxMax(max) => channels.tx.max = max,
            EthtoolChannelAttr::CombinedMax(max) => channels.combined.max = max,
            EthtoolChannelAttr::RxCount(now) => channels.rx.now = now,
            EthtoolChannelAttr::TxCount(now) => channels.tx.now = now,
            EthtoolChannelAttr::CombinedCount(now) => channels.combined.now = now,
            _ => {}
        }
    }
    let told = [channels.rx, channels.combined].iter().any(|it| *it != Count::default());
    told.then_some(channels)
}

async fn offloads(ethtool: &mut EthtoolHandle, interface: &str) -> Option<BTreeSet<String>> {
    let asked = ethtool.feature().get(Some(interface)).execute().await.ok()?;
    let messages = asked.try_collect::<Vec<_>>().await.ok()?;
    let active = messages.into_iter().flat_map(|message| message.payload.nlas);
    let active = active.filter_map(|attribute| match attribute {
        EthtoolAttr::Feature(EthtoolFeatureAttr::Active(features)) => Some(features),
        _ => None,
    });
    let on = active.flatten().filter(|feature| feature.value);
    Some(on.map(|feature| feature.name).collect())
}

/// CPUs of the machine.
pub fn cpus() -> Result<Cpus, String> {
    let count = |which: &str| {
        let path = format!("/sys/devices/system/cpu/{which}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>(count_of(&text))
    };
    Ok(Cpus { possible: count("possible")?, online: count("online")? })
}

/// Of `0-3,6`: 5.
fn count_of(ranges: &str) -> u32 {
    let count = |range: &str| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high): (u32, u32) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        Some(high.checked_sub(low)? + 1)
    };
    ranges.trim().split(',').filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_cpus() {
        for (text, want) in [("0\n", 1), ("0-3", 4), ("0-3,6\n", 5), ("", 0), ("3-1", 0)] {
            assert_eq!(count_of(text), want, "{text:?}");
        }
    }

    #[test]
    fn virtio_features() {
        let zeros = "0".repeat(31);
        for (text, want) in
            [("1", 1), ("0110\n", 0b110), (&format!("0{zeros}1")[..], 1 << 32), ("", 0)]
        {
            assert_eq!(features_of(text), want, "{text:?}");
        }
    }
}
