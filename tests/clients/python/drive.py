"""Drives an agent through python-consul2, as it comes from the registry.

usage: drive.py ADDRESS
"""

import base64
import sys
import threading
import time

import consul

LONG = 30


def until(what, condition):
    end = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {LONG} s: {what}"
        time.sleep(0.05)
    return found


class Later(threading.Thread):
    """Waits for something in the background; `result` gives what came of it."""

    def __init__(self, wait):
        super().__init__(daemon=True)
        self.wait, self.value = wait, None
        self.start()

    def run(self):
        self.value = self.wait()

    def result(self):
        self.join(LONG)
        assert not self.is_alive(), "the agent did not answer who waited"
        return self.value


def kv(agent):
    index, none = agent.kv.get("py/none")
    assert none is None and int(index) > 0
    assert agent.kv.put("py/a", "one", flags=7) is True
    assert agent.kv.put("py/b/c", b"\xff\x00") is True
    index, entry = agent.kv.get("py/a")
    assert (entry["Value"], entry["Flags"]) == (b"one", 7), entry
    assert agent.kv.get("py/b/c")[1]["Value"] == b"\xff\x00"
    assert agent.kv.put("py/a", "two", cas=entry["ModifyIndex"]) is True
    assert agent.kv.put("py/a", "three", cas=entry["ModifyIndex"]) is False
    assert [row["Key"] for row in agent.kv.get("py/", recurse=True)[1]] == ["py/a", "py/b/c"]
    assert agent.kv.get("py/", keys=True, separator="/")[1] == ["py/a", "py/b/"]
    assert agent.kv.get("py/a", consistency="consistent")[1]["Value"] == b"two"
    result = agent.txn.put([
        {"KV": {"Verb": "set", "Key": "py/t", "Value": base64.b64encode(b"t").decode()}},
        {"KV": {"Verb": "get", "Key": "py/t"}},
    ])
    assert result["Errors"] is None and len(result["Results"]) == 2, result
    assert agent.kv.delete("py/", recurse=True) is True
    assert agent.kv.get("py/", recurse=True)[1] is None


def catalog(agent):
    assert agent.catalog.datacenters() == ["dc1"]
    service = {"service": "mysql", "id": "mysql-1", "port": 3306, "tags": ["primary"]}
    check = {"Name": "up", "CheckID": "up", "Status": "passing", "ServiceID": "mysql-1"}
    assert agent.catalog.register("py-ext", "10.9.9.9", service=service, check=check) is True
    nodes = {node["Node"]: node["Address"] for node in agent.catalog.nodes()[1]}
    assert nodes["py-ext"] == "10.9.9.9", nodes
    assert agent.catalog.services()[1]["mysql"] == ["primary"]
    (row,) = agent.catalog.service("mysql", tag="primary")[1]
    assert (row["ServicePort"], row["Node"]) == (3306, "py-ext")
    assert list(agent.catalog.node("py-ext")[1]["Services"]) == ["mysql-1"]
    assert agent.catalog.deregister("py-ext", service_id="mysql-1") is True
    assert agent.catalog.service("mysql")[1] == []
    assert agent.catalog.deregister("py-ext") is True
    assert agent.catalog.node("py-ext")[1] is None


def agent_and_health(agent):
    own = agent.agent.self()["Config"]["NodeName"]
    (member,) = agent.agent.members()
    assert (member["Name"], member["Status"]) == (own, 1)
    check = consul.Check.ttl("10m")
    assert agent.agent.service.register("web", service_id="w1", port=80, tags=["a"], check=check)
    assert agent.agent.services()["w1"]["Port"] == 80
    assert agent.agent.checks()["service:w1"]["Status"] == "critical"
    until("web in the catalog", lambda: agent.health.service("web")[1])
    assert agent.health.service("web", passing=True)[1] == []
    assert agent.agent.check.ttl_pass("service:w1", "fine") is True
    (row,) = until("web passes", lambda: agent.health.service("web", passing=True)[1])
    assert (row["Service"]["ID"], row["Node"]["Node"]) == ("w1", own)
    assert agent.agent.check.register("mem", consul.Check.ttl("10m")) is True
    assert agent.agent.check.ttl_warn("mem", "low") is True
    warning = until("a warning", lambda: agent.health.state("warning")[1])
    assert [(check["CheckID"], check["Output"]) for check in warning] == [("mem", "low")]
    assert "serfHealth" in [check["CheckID"] for check in agent.health.node(own)[1]]
    assert [check["CheckID"] for check in agent.health.checks("web")[1]] == ["service:w1"]
    assert agent.agent.maintenance(True, "new disk") is True
    assert "_node_maintenance" in agent.agent.checks()
    assert agent.agent.maintenance(False) is True
    assert agent.agent.check.deregister("mem") is True
    assert agent.agent.service.deregister("w1") is True
    until("web is gone", lambda: not agent.health.service("web")[1])


def session_and_lock(agent):
    first = agent.session.create(name="first", ttl=15, lock_delay=1)
    second = agent.session.create(name="second", behavior="delete")
    assert agent.session.info(first)[1]["Name"] == "first"
    assert agent.session.renew(first)["ID"] == first
    assert {row["ID"] for row in agent.session.list()[1]} == {first, second}
    assert agent.kv.put("py/lock", "first", acquire=first) is True
    assert agent.kv.put("py/lock", "second", acquire=second) is False
    assert agent.kv.get("py/lock")[1]["Session"] == first
    assert agent.kv.put("py/lock", "", release=first) is True
    assert agent.kv.put("py/lock", "second", acquire=second) is True
    assert agent.session.destroy(second) is True
    assert agent.kv.get("py/lock")[1] is None, "its session deletes what it held"
    assert agent.session.destroy(first) is True


def watch(agent):
    agent.kv.put("py/watched", "1")
    index, _ = agent.kv.get("py/watched")
    waiting = Later(lambda: agent.kv.get("py/watched", index=index, wait="60s"))
    agent.kv.put("py/watched", "2")
    later, entry = waiting.result()
    assert entry["Value"] == b"2" and int(later) > int(index)
    index, _ = agent.catalog.services()
    waiting = Later(lambda: agent.catalog.services(index=index, wait="60s"))
    agent.agent.service.register("py-new")
    assert "py-new" in waiting.result()[1]
    agent.agent.service.deregister("py-new")
    assert agent.kv.get("py/watched", index=later, wait="20ms")[1]["Value"] == b"2"
    agent.kv.delete("py/watched")


def rest(agent):
    assert agent.status.leader().endswith(":8300")
    assert agent.status.leader() in agent.status.peers()
    assert agent.event.fire("deploy", "now")
    until("the event", lambda: [it for it in agent.event.list()[1] if it["Name"] == "deploy"])
    assert agent.coordinate.datacenters()[0]["Datacenter"] == "dc1"
    try:
        agent.kv.put("py/a", "x", acquire="no-uuid")
    except consul.ConsulException as error:
        assert "UUID must be 36 characters" in str(error)
    else:
        raise AssertionError("a bad session is refused")


def main():
    agent = consul.Consul(host=sys.argv[1])
    parts = [kv, catalog, agent_and_health, session_and_lock, watch, rest]
    for part in parts:
        part(agent)
        print(f"python-consul2: {part.__name__}: ok")


if __name__ == "__main__":
    main()
