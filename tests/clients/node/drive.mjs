// Drives an agent through the package `consul`, as it comes from the registry.
//
// usage: node drive.mjs ADDRESS

import assert from "node:assert/strict";
import { createRequire } from "node:module";

// It is installed beside the agent's data, not beside this file.
const Consul = createRequire(`${process.cwd()}/`)("consul");
const LONG = 30_000;

async function until(what, condition) {
  const end = Date.now() + LONG;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert(Date.now() < end, `not within ${LONG} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** The first change of a watch that `wanted` takes. */
function change(watch, wanted) {
  return new Promise((done, failed) => {
    const late = setTimeout(() => end(failed, new Error("the watch saw no change")), LONG);
    const end = (how, value) => {
      clearTimeout(late);
      watch.end();
      how(value);
    };
    watch.on("change", (data) => wanted(data) && end(done, data));
    watch.on("error", (error) => end(failed, error));
  });
}

// The package turns an answer of false, and 404, into undefined.

async function kv(consul) {
  assert.equal(await consul.kv.get("node/none"), undefined);
  assert.equal(await consul.kv.set({ key: "node/a", value: "one", flags: 7 }), true);
  assert.equal(await consul.kv.set("node/b/c", "two"), true);
  const entry = await consul.kv.get("node/a");
  assert.deepEqual([entry.Value, entry.Flags], ["one", 7]);
  const cas = String(entry.ModifyIndex);
  assert.equal(await consul.kv.set({ key: "node/a", value: "2", cas }), true);
  assert(!(await consul.kv.set({ key: "node/a", value: "3", cas })));
  assert.deepEqual(await consul.kv.keys("node/"), ["node/a", "node/b/c"]);
  const all = await consul.kv.get({ key: "node/", recurse: true });
  assert.deepEqual(all.map((row) => row.Value), ["2", "two"]);
  const done = await consul.transaction.create([
    { KV: { Verb: "set", Key: "node/t", Value: Buffer.from("t").toString("base64") } },
    { KV: { Verb: "get", Key: "node/t" } },
  ]);
  assert.deepEqual([done.Errors, done.Results.length], [null, 2]);
  assert.equal(await consul.kv.del({ key: "node/", recurse: true }), true);
}

async function catalog(consul) {
  assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
  await consul.catalog.register({
    node: "node-ext",
    address: "10.9.9.9",
    service: { id: "mysql-1", service: "mysql", port: 3306, tags: ["primary"] },
  });
  const nodes = await consul.catalog.node.list();
  assert(nodes.some((row) => row.Node === "node-ext" && row.Address === "10.9.9.9"));
  assert.deepEqual((await consul.catalog.service.list()).mysql, ["primary"]);
  const [row] = await consul.catalog.service.nodes("mysql");
  assert.deepEqual([row.ServicePort, row.Node], [3306, "node-ext"]);
  assert.deepEqual(Object.keys((await consul.catalog.node.services("node-ext")).Services), [
    "mysql-1",
  ]);
  await consul.catalog.deregister("node-ext");
  assert.deepEqual(await consul.catalog.service.nodes("mysql"), []);
}

async function agentAndHealth(consul) {
  const own = (await consul.agent.self()).Config.NodeName;
  const members = await consul.agent.members();
  assert.deepEqual(members.map((member) => [member.Name, member.Status]), [[own, 1]]);
  await consul.agent.service.register({
    name: "web",
    id: "w1",
    port: 80,
    tags: ["a"],
    check: { name: "up", ttl: "10m" },
  });
  assert.equal((await consul.agent.service.list()).w1.Port, 80);
  assert.equal((await consul.agent.check.list())["service:w1"].Status, "critical");
  const passing = () => consul.health.service({ service: "web", passing: true });
  assert.deepEqual(await passing(), []);
  await consul.agent.check.pass("service:w1");
  const [row] = await until("web passes", async () => (await passing()).length && passing());
  assert.deepEqual([row.Service.ID, row.Node.Node], ["w1", own]);
  await consul.agent.check.register({ name: "mem", ttl: "10m" });
  await consul.agent.check.warn({ id: "mem", note: "low" });
  const warnings = async () => (await consul.health.state("warning")).map((check) => check.Output);
  await until("a warning", async () => (await warnings()).includes("low"));
  const checks = await consul.health.node(own);
  assert(checks.some((check) => check.CheckID === "serfHealth"));
  await consul.agent.service.maintenance({ id: "w1", enable: true, reason: "new disk" });
  await until("web is taken out", async () => (await passing()).length === 0);
  await consul.agent.service.maintenance({ id: "w1", enable: false });
  await consul.agent.check.deregister("mem");
  await consul.agent.service.deregister("w1");
  const gone = async () => (await consul.health.service("web")).length === 0;
  await until("web is gone", gone);
}

async function sessionAndLock(consul) {
  const create = async (options) => (await consul.session.create(options)).ID;
  const first = await create({ name: "first", ttl: "15s", lockdelay: "1s" });
  const second = await create({ name: "second", behavior: "delete" });
  assert.equal((await consul.session.get(first)).Name, "first");
  assert.equal((await consul.session.renew(first))[0].ID, first);
  const ids = (await consul.session.list()).map((row) => row.ID);
  assert.deepEqual(ids.sort(), [first, second].sort());
  const lock = (value, acquire) => consul.kv.set({ key: "node/lock", value, acquire });
  assert.equal(await lock("first", first), true);
  assert(!(await lock("second", second)));
  assert.equal((await consul.kv.get("node/lock")).Session, first);
  assert.equal(await consul.kv.set({ key: "node/lock", value: "", release: first }), true);
  assert.equal(await lock("second", second), true);
  await consul.session.destroy(second);
  assert.equal(await consul.kv.get("node/lock"), undefined);
  await consul.session.destroy(first);
}

async function watch(consul) {
  await consul.kv.set("node/watched", "1");
  const key = consul.watch({ method: consul.kv.get, options: { key: "node/watched" } });
  const changed = change(key, (data) => data?.Value === "2");
  await consul.kv.set("node/watched", "2");
  assert.equal((await changed).Value, "2");
  const health = consul.watch({
    method: consul.health.service,
    options: { service: "node-new", passing: true },
  });
  const appeared = change(health, (data) => data.length > 0);
  await consul.agent.service.register("node-new");
  assert.equal((await appeared)[0].Service.Service, "node-new");
  await consul.agent.service.deregister("node-new");
  await consul.kv.del("node/watched");
}

async function rest(consul) {
  const leader = await consul.status.leader();
  assert((await consul.status.peers()).includes(leader));
  await consul.event.fire("deploy", "now");
  const fired = async () => (await consul.event.list()).some((event) => event.Name === "deploy");
  await until("the event", fired);
  const bad = consul.kv.set({ key: "node/a", value: "x", acquire: "no-uuid" });
  await assert.rejects(bad, /UUID must be 36 characters/);
}

const consul = new Consul({ host: process.argv[2] });
for (const part of [kv, catalog, agentAndHealth, sessionAndLock, watch, rest]) {
  await part(consul);
  console.log(`node consul: ${part.name}: ok`);
}
process.exit(0);
