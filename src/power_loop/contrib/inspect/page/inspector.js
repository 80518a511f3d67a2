/* The inspector's page. Whatever a model, a tool or a stranger wrote goes through `said`, which makes text of it: no
   string becomes markup anywhere, and the page's policy (trusted types) holds the browser to that. */
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const KINDS = {
  completed: "good", succeeded: "good", open: "rest", closed: "rest", new: "rest", aborted: "rest", cancelled: "rest",
  failed: "bad", unknown: "bad", interrupted: "bad", refused: "bad", output_invalid: "bad", vetoed: "bad",
  running: "run", started: "run", requested: "run", waiting: "wait", waiting_for_input: "wait", approved: "run",
};
const ASKS = {
  approval: "Allow this call?", input: "An answer is wanted", result: "Its result is wanted",
  agent: "A sub-agent waits", outcome: "Did it happen? Its process died while it ran",
};
const RESUMABLE = new Set(["running", "waiting_for_input", "failed"]);
const MAX_EVENTS = 200;
const MAX_LIVE_CHARS = 200000;
const MAX_TITLE = 300;
// A shorter result is no preview of a longer one.
const MAY_BE_CUT_CHARS = 1000;

const $ = (id) => document.getElementById(id);
let about = { can_write: false, can_drive: false, is_attached: false };
let route = {};
let listed = { sessions: [], next_cursor: null };
let shownSessions = 50;
let view = null; // what the main part shows: {update, close}
let source = null;

// ---- text ----

// What moves, hides or turns text stands as its number, in a mark of its own.
const SIGNS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

function said(text) {
  const found = document.createDocumentFragment();
  let at = 0;
  text = String(text);
  for (const match of text.matchAll(SIGNS)) {
    found.append(text.slice(at, match.index));
    const mark = document.createElement("span");
    mark.className = "sign";
    mark.textContent = nameOf(match[0]);
    found.append(mark);
    at = match.index + match[0].length;
  }
  found.append(text.slice(at));
  return found;
}

function nameOf(sign) {
  return "U+" + sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

function plain(text) {
  return String(text).replace(SIGNS, nameOf);
}

function h(name, props = {}, ...children) {
  const node = document.createElement(name);
  dress(node, props, children);
  return node;
}

function g(name, props = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  dress(node, props, children);
  return node;
}

function dress(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(key, value === true ? "" : plain(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : said(child));
  }
}

const number = (value) => (value ?? 0).toLocaleString("en");
const time = (ms) => (ms ? new Date(ms).toLocaleTimeString("en-GB") : "");
const moment = (ms) => (ms ? new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : "");
const words = (text) => String(text).replaceAll("_", " ");
const money = (nanos) => (nanos === null || nanos === undefined ? null : String(Number((nanos / 1e9).toPrecision(4))));
const count = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;
const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);
const tokens = (usage) => (usage ? `${number(usage.input_tokens)} + ${number(usage.output_tokens)} tokens` : "tokens unknown");

function state(text) {
  return h("span", { class: `state ${KINDS[text] ?? "rest"}` }, words(text));
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function say(text) {
  $("said").textContent = plain(text);
}

function complain(text) {
  const box = h("div", {}, h("span", {}, text));
  box.append(h("button", { class: "small", type: "button", on: { click: () => box.remove() } }, "Dismiss"));
  $("alert").append(box);
  while ($("alert").children.length > 4) $("alert").firstChild.remove();
}

// ---- the server ----

function ask(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  return reach(`${path}?${new URLSearchParams(given)}`);
}

function tell(path, body) {
  return reach(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

async function reach(path, options) {
  let answer, text, value;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch {
    throw Object.assign(new Error("the inspector does not answer"), { isAway: true });
  }
  try {
    value = JSON.parse(text || "{}");
  } catch {
    value = { error: text.trim() };
  }
  if (!answer.ok) throw Object.assign(new Error(value.error), { status: answer.status, code: value.code });
  return value;
}

// The records of a list that may have been cut: behind its last one a text stands then.
const records = (list) => list.filter((one) => typeof one === "object");

// Do something that the person asked for; while it goes on the button rests, and what fails is said.
function doing(button, work, done) {
  return async (event) => {
    event?.preventDefault();
    if (button) button.disabled = true;
    try {
      await work();
      if (done) say(done);
    } catch (error) {
      complain(error.code ? `${error.message} [${error.code}]` : error.message);
    } finally {
      if (button) button.disabled = false;
    }
  };
}

function button(label, work, { done, kind = "", title } = {}) {
  const made = h("button", { type: "button", class: kind, "aria-label": title }, label);
  made.addEventListener("click", doing(made, work, done));
  return made;
}

// ---- what stays and what changes ----

// Bring the children of a node to a list of [key, signature, make]: what is the same stays as it is, with its focus,
// its open details and what is typed into it.
function settle(parent, wanted) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let before = null;
  for (const [key, value, make] of wanted) {
    const signature = JSON.stringify(value);
    let node = known.get(key);
    if (!node || node.signature !== signature) {
      const made = make();
      made.dataset.key = key;
      made.signature = signature;
      if (node) {
        keep(node, made);
        node.replaceWith(made);
      }
      node = made;
    }
    known.delete(key);
    const next = before ? before.nextSibling : parent.firstChild;
    if (next !== node) parent.insertBefore(node, next);
    before = node;
  }
  for (const node of known.values()) node.remove();
}

function keep(old, made) {
  const open = [...old.querySelectorAll("details[data-fold]")];
  for (const one of open) {
    const twin = [...made.querySelectorAll("details[data-fold]")].find((node) => node.dataset.fold === one.dataset.fold);
    if (twin) twin.open = one.open;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  if (focused) queueMicrotask(() => [...made.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focused)?.focus());
}

// ---- the list ----

async function readSessions() {
  const found = await ask("/api/sessions", { limit: shownSessions });
  listed = { ...found, sessions: records(found.sessions) };
  drawSessions();
}

function drawSessions() {
  const wanted = $("filter").value.trim().toLowerCase();
  const known = new Map(listed.sessions.map((one) => [one.id, one]));
  const here = topOf(known, known.get(route.id));
  // A sub-agent stands below who made it; one that is done is shown in the tree that one looks at only, or on demand.
  const below = new Map();
  for (const one of listed.sessions) {
    const parent = known.has(one.parent_id) ? one.parent_id : null;
    const isDone = one.parent_id && one.status === "completed" && !$("finished").checked && topOf(known, one) !== here;
    const isFound = !wanted || JSON.stringify([one.id, one.metadata, one.agent, one.status]).toLowerCase().includes(wanted);
    if (isFound && !isDone) below.set(parent, [...(below.get(parent) ?? []), one]);
  }
  const lines = [];
  const walk = (parent, depth) => {
    for (const one of below.get(parent) ?? []) {
      lines.push([one, depth]);
      walk(one.id, depth + 1);
    }
  };
  walk(null, 0);
  // Who was made by a session that does not fit the filter stands at the top.
  for (const one of [...below.values()].flat()) if (!lines.some(([line]) => line === one)) lines.push([one, 0]);
  settle($("sessions"), lines.map(([one, depth]) => [one.id, [one, depth, one.id === route.id], () => sessionLine(one, depth)]));
  $("more").hidden = listed.next_cursor === null || shownSessions >= 500;
  if (wanted) say(`${lines.length} sessions found`);
}

function topOf(known, one) {
  while (one && known.has(one.parent_id)) one = known.get(one.parent_id);
  return one;
}

function title(one) {
  const names = [one.metadata?.title, one.metadata?.name, one.metadata?.workflow, one.agent, one.id];
  return [...names.find((name) => typeof name === "string" && name)].slice(0, MAX_TITLE).join("");
}

function sessionLine(one, depth) {
  const link = h("a", { href: address(one.id), "aria-current": one.id === route.id ? "page" : null },
    h("span", { class: "name" }, title(one)),
    h("span", { class: "under" }, state(one.status === "waiting_for_input" ? "waiting" : one.status),
      h("span", { class: "num" }, count(one.messages, "message")), h("time", {}, time(one.updated_at_ms))));
  link.style.marginLeft = `${Math.min(depth, 5) * 0.6}rem`;
  return h("li", { class: depth ? "below" : null }, link);
}

function address(id, what = "timeline", more = "") {
  return `#/session/${encodeURIComponent(id)}/${what}${more === "" ? "" : `/${more}`}`;
}

const sessionLink = (id, text = id) => h("a", { href: address(id) }, text);

// ---- the overview ----

function overview() {
  const place = h("div");
  $("main").replaceChildren(h("header", { class: "head" }, h("h2", {}, "What goes on"),
    h("p", { class: "soft" }, "Choose a session on the left, or see who works and what waits.")), place);
  return {
    async update() {
      const found = await ask("/api/overview");
      for (const name of ["stalled", "runs", "timers"]) found[name] = records(found[name]);
      const waiting = listed.sessions.filter((one) => one.waits);
      const panels = [
        ["Waits for a person", "Nothing waits for a person", waiting, (one) => [sessionLink(one.id, title(one)), state(one.status), moment(one.updated_at_ms)], ["Session", "State", "Since"]],
        ["Runs now", "no turn runs", listed.sessions.filter((one) => one.owner), (one) => [sessionLink(one.id, title(one)), h("code", {}, one.owner), time(one.lease_until_ms)], ["Session", "Owner", "Lease until"]],
        ["Driven by nobody", "nothing was left behind", found.stalled, (one) => [sessionLink(one.session_id), state(one.send_status ?? "new"), h("code", {}, one.owner ?? "")], ["Session", "State", "Last owner"]],
        ["Workflows", "there are no workflows", found.runs, (one) => [h("a", { href: address(one.session_id, "workflow") }, one.name), state(one.state), moment(one.created_at_ms)], ["Run", "State", "Begun"]],
        ["Timers", "no timer is set", found.timers, (one) => [sessionLink(one.session_id), one.name ?? one.id, moment(one.due_at_ms)], ["Session", "Timer", "Due"]],
        ["Owners of leases", "nobody holds a lease", found.owners.map((one) => ({ one })), ({ one }) => [h("code", {}, one)], ["Owner"]],
      ];
      const wanted = panels.filter(([, , rows]) => rows.length).map(([name, , rows, cells, heads]) => [name, rows, () =>
        h("section", { class: "panel" }, h("h3", {}, name), table(heads, rows.map(cells), name))]);
      const none = panels.filter(([, , rows]) => !rows.length).map(([, text]) => text).join(", ");
      if (none) wanted.push(["none", none, () => h("p", { class: "soft gap" }, `${none[0].toUpperCase()}${none.slice(1)}.`)]);
      if (found.agent) wanted.push(["agent", found.agent, () => agentPanel(found.agent)]);
      settle(place, wanted);
    },
  };
}

function agentPanel(agent) {
  return h("section", { class: "panel" }, h("h3", {}, "The agent of this process"), h("dl", { class: "facts" },
    fact("Model", h("code", {}, agent.model)), fact("Tools", agent.tools.join(", ") || "none"),
    Object.entries(agent.hooks).map(([point, names]) => fact(`Hooks at ${point}`, names.join(", ")))));
}

function table(heads, rows, label, numeric = []) {
  return h("div", { class: "scroll" }, h("table", { "aria-label": label },
    h("thead", {}, h("tr", {}, heads.map((one, at) => h("th", { scope: "col", class: numeric.includes(at) ? "num" : null }, one)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((one, at) => h("td", { class: numeric.includes(at) ? "num" : null }, one)))))));
}

function fact(name, ...value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
}

// ---- a session ----

function sessionPage(id, what, more) {
  const head = h("header", { class: "head" });
  const tabs = h("nav", { class: "tabs", "aria-label": "Views of the session" });
  const asks = h("div", {});
  const body = h("div", {});
  const data = { id, messages: new Map(), calls: new Map(), model_calls: new Map(), sends: new Map(), first: null, spoken: null };
  const live = about.is_attached ? livePart(id) : null;
  const parts = new Map([["prompt", promptPart], ["tree", treePart], ["workflow", workflowPart], ["cost", costPart]]);
  const part = parts.get(what) ?? timeline;
  const shown = part(data, body, more, live);
  $("main").replaceChildren(head, tabs, asks, body);
  return {
    live,
    canFork: () => !data.run,
    async update() {
      const last = Math.max(0, ...data.messages.keys());
      const found = await ask("/api/session", { session: id, after: last || null });
      // More came than a page holds: what is shown would have a gap.
      if (last && found.first_seq > last + 1) data.messages.clear(), (data.first = null);
      take(data, found);
      drawHead(data, head);
      drawTabs(data, tabs, what);
      drawAsks(data, asks, what);
      await shown.update();
      announce(data);
    },
  };
}

function take(data, found) {
  for (const one of records(found.messages)) data.messages.set(one.seq, one);
  for (const one of records(found.calls)) data.calls.set(one.call_id, one);
  for (const one of records(found.model_calls)) data.model_calls.set(one.reply_seq, one);
  for (const one of records(found.sends)) data.sends.set(one.index, one);
  data.first = data.first === null ? found.first_seq : Math.min(data.first, found.first_seq);
  for (const name of ["folds", "pending", "inbox", "timers", "runs"]) data[name] = records(found[name]);
  Object.assign(data, { session: found.session, stats: found.stats, budget: found.budget });
  data.run = found.run && { ...found.run, steps: records(found.run.steps) };
}

function lastSend(data) {
  return data.sends.get(data.session.send_count);
}

function announce(data) {
  const send = lastSend(data);
  const asking = data.pending.filter((one) => one.wait_kind).map((one) => one.name);
  const text = `${send ? words(send.status) : "no send yet"}, ${data.session.next_seq - 1} messages${asking.length ? `, ${asking.join(" and ")} waits for an answer` : ""}`;
  if (data.spoken !== null && data.spoken !== text) say(text);
  data.spoken = text;
}

function drawHead(data, head) {
  const one = data.session;
  const send = lastSend(data);
  const status = send?.status ?? "new";
  settle(head, [["head", [one, status, send?.attempts], () => {
    const facts = h("dl", { class: "facts" });
    if (title(one) !== one.id) facts.append(fact("Session", h("code", {}, one.id)));
    if (one.owner) facts.append(fact("Held by", h("code", {}, one.owner)), fact("Lease until", time(one.lease_until_ms)));
    facts.append(fact("Lease epoch", h("span", { class: "num" }, one.epoch)), fact("Made", moment(one.created_at_ms)), fact("Changed", moment(one.updated_at_ms)));
    if (one.parent_id) facts.append(fact("Sub-agent of", sessionLink(one.parent_id)));
    if (one.forked_from) facts.append(fact("Fork of", sessionLink(one.forked_from), ` at ${one.forked_at_seq}`));
    for (const [name, value] of Object.entries(one.metadata).filter(([, value]) => value !== title(one)).slice(0, 8)) facts.append(fact(name, typeof value === "string" ? value : JSON.stringify(value)));
    const acts = h("div", { class: "acts" });
    if (about.can_write) {
      if (one.next_seq > 1 && !data.run) acts.append(button("Fork", () => fork(one.id, null), { kind: "", title: "Fork at the last message" }));
      if (status === "running" || one.owner) acts.append(button("Cancel the turn", () => tell("/api/cancel", { session_id: one.id }), { kind: "danger", done: "The turn is asked to stop." }));
    }
    if (about.can_drive && RESUMABLE.has(status) && !one.owner && one.state === "open") acts.append(button("Resume", () => tell("/api/resume", { session_id: one.id }), { done: "The turn goes on." }));
    return h("div", {}, h("div", { class: "title" }, h("h2", {}, title({ ...one, agent: one.agent?.name })), state(status), one.state === "closed" ? state("closed") : null), facts, acts.children.length ? acts : null);
  }]]);
  document.title = `${plain(title({ ...one, agent: one.agent?.name }))} · power-loop inspector`;
}

async function fork(id, at) {
  const made = await tell("/api/fork", { session_id: id, at });
  await readSessions();
  location.hash = address(made.session_id);
}

function drawTabs(data, tabs, what) {
  const names = [["timeline", "Timeline"], ["prompt", "Prompts"], ["tree", "Sub-agents"], ["cost", "Budgets and cost"]];
  if (data.run || data.runs.length) names.splice(3, 0, ["workflow", data.run ? "Workflow" : "Workflows"]);
  settle(tabs, names.map(([key, name]) => [key, [name, key === what], () =>
    h("a", { href: address(data.id, key), "aria-current": key === what ? "page" : null, "data-focus": key }, name)]));
}

// ---- what waits for a person ----

function drawAsks(data, asks, what) {
  const waiting = data.pending.filter((one) => one.wait_kind);
  if (!["timeline", "workflow"].includes(what)) {
    const names = waiting.map((one) => one.name).join(", ");
    return settle(asks, waiting.length ? [["asks", names, () => h("p", { class: "said broken" }, `${names} waits for an answer: `, h("a", { href: address(data.id) }, "see it in the timeline"))]] : []);
  }
  const steps = (data.run?.steps ?? []).filter((one) => one.kind === "wait" && one.state === "waiting");
  settle(asks, [...waiting.map((one) => [one.call_id, one, () => askPart(data.id, one)]),
    ...steps.map((one) => [one.path, one, () => stepPart(data.id, one, nodeOf(data.run.spec?.root, one.node_id))])]);
}

function askPart(id, one) {
  const label = `${ASKS[one.wait_kind] ?? "It waits"}`;
  const box = h("section", { class: "ask", "aria-label": `${one.name} waits` }, h("h3", {}, label, " ", h("code", {}, one.name)));
  if (one.prompt) box.append(h("p", { class: "text" }, one.prompt));
  box.append(h("pre", { tabindex: "0", "aria-label": "Arguments" }, one.arguments));
  if (one.data) box.append(h("details", { "data-fold": "data" }, h("summary", {}, "What it shows with that"), h("pre", {}, JSON.stringify(one.data, null, 2))));
  if (one.wait_kind === "agent") {
    const child = one.data?.session_id ?? one.data?.agent_session_id;
    box.append(child ? h("p", {}, "It is answered there: ", sessionLink(child)) : h("p", { class: "soft" }, "It is answered in the sub-agent's session."));
    return box;
  }
  if (!about.can_drive) {
    box.append(h("p", { class: "soft" }, "This inspector only looks: `power-loop inspect --write --app my_app:make_loop` lets you answer here."));
    return box;
  }
  const answer = (value) => tell("/api/resume", { session_id: id, answers: { [one.call_id]: value } });
  const field = (name, label, tag = "input") => h(tag, { name, "aria-label": label, placeholder: label, autocomplete: "off" });
  const form = h("form", {});
  if (one.wait_kind === "approval") {
    const reason = field("reason", "Why not (the model reads it)");
    if (!one.is_whole) box.append(h("p", {}, "Its arguments are too long to be shown here, so it can only be refused."));
    else form.append(button("Approve", () => answer({ kind: "approve" }), { kind: "main", title: `Approve ${one.name}`, done: "Approved." }));
    form.append(button("Deny", () => answer({ kind: "deny", reason: reason.value }), { kind: "danger", title: `Deny ${one.name}`, done: "Denied." }), reason);
  } else {
    const value = field("value", one.wait_kind === "outcome" ? "What came of it" : "The answer: text, or JSON", "textarea");
    const read = () => {
      if (one.answer_schema?.type === "string" || one.wait_kind === "outcome") return value.value;
      try {
        return JSON.parse(value.value);
      } catch {
        return value.value;
      }
    };
    const give = one.wait_kind === "outcome" ? "It happened" : "Answer";
    form.append(value, button(give, () => answer({ kind: "give", result: read() }), { kind: "main", done: "Answered." }));
    form.append(button(one.wait_kind === "outcome" ? "It did not" : "Refuse", () => answer({ kind: "deny", reason: value.value }), { kind: "danger", done: "Refused." }));
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  box.append(form);
  return box;
}

function nodeOf(node, id) {
  if (!node || typeof node !== "object") return null;
  if (node.id === id) return node;
  for (const one of Array.isArray(node) ? node : Object.values(node)) {
    const found = nodeOf(one, id);
    if (found) return found;
  }
  return null;
}

function stepPart(id, step, node) {
  const box = h("section", { class: "ask", "aria-label": `${step.path} waits` }, h("h3", {}, "A step waits ", h("code", {}, step.path)));
  const question = step.input?.question ?? node?.person;
  if (question) box.append(h("p", { class: "text" }, question));
  if (step.due_at_ms) box.append(h("p", { class: "soft" }, `It goes on by itself at ${moment(step.due_at_ms)}.`));
  const name = node?.person !== undefined ? step.path : node?.signal;
  if (!name || !about.can_drive) return box;
  const give = (value) => tell("/api/signal", { session_id: id, name, value });
  const form = h("form", {});
  form.addEventListener("submit", (event) => event.preventDefault());
  if (node.choices?.length) form.append(...node.choices.map((one) => button(one, () => give(one), { done: "Answered." })));
  else {
    const value = h("input", { "aria-label": "The answer", placeholder: "The answer", autocomplete: "off" });
    form.append(value, button("Answer", () => give(value.value), { kind: "main", done: "Answered." }));
  }
  box.append(form);
  return box;
}

// ---- the timeline ----

function timeline(data, body, more, live) {
  const earlier = h("div", { class: "acts" });
  const list = h("div", { "aria-label": "Timeline", role: "region" });
  const behind = h("div");
  body.append(earlier, list, behind);
  if (live) body.append(live.node);
  let isFirst = true;
  return {
    async update() {
      const isAtEnd = isFirst || $("main").scrollHeight - $("main").scrollTop - $("main").clientHeight < 80;
      settle(earlier, data.first > 1 ? [["earlier", data.first, () => button(`Show earlier messages (${number(data.first - 1)})`, async () => {
        take(data, { ...(await ask("/api/session", { session: data.id, before: data.first })) });
        await view.update();
      })]] : []);
      draw(data, list);
      settle(behind, waitingLines(data));
      if (isAtEnd && !isFirst && live) $("main").scrollTop = $("main").scrollHeight;
      isFirst = false;
    },
  };
}

// What has not been said yet: inputs that wait, and timers that will bring one.
function waitingLines(data) {
  const lines = [];
  if (data.inbox.length) lines.push(["inbox", data.inbox, () => h("section", { class: "panel" }, h("h3", {}, "Waits in the inbox"),
    table(["Place", "Input", "Since"], data.inbox.map((one) => [String(one.position), h("div", { class: "text" }, one.message.parts.map((part) => contentPart(data.id, 0, part))), time(one.created_at_ms)]), "Inbox"))]);
  if (data.timers.length) lines.push(["timers", data.timers, () => h("section", { class: "panel" }, h("h3", {}, "Timers"),
    table(["Timer", "Due", "Brings"], data.timers.map((one) => [one.name ?? one.id, moment(one.due_at_ms), h("div", { class: "text" }, one.message.parts.map((part) => contentPart(data.id, 0, part)))]), "Timers"))]);
  return lines;
}

function draw(data, list) {
  const results = new Map();
  const sends = new Map();
  for (const one of [...data.messages.values()].sort((a, b) => a.seq - b.seq)) {
    const part = one.message.parts[0];
    if (part?.type === "tool_result" && data.calls.has(part.call_id)) {
      results.set(part.call_id, one);
      if (data.messages.has(data.calls.get(part.call_id).reply_seq)) continue;
    }
    if (!sends.has(one.send_index)) sends.set(one.send_index, []);
    sends.get(one.send_index).push(one);
  }
  settle(list, [...sends].map(([index, messages]) => {
    const send = data.sends.get(index);
    const rows = messages.flatMap((one) => {
      const calls = one.message.parts.filter((part) => part.type === "tool_call").map((part) => [part, data.calls.get(part.id), results.get(part.id)]);
      const fold = data.folds.filter((fold) => fold.send_index === index && fold.to_seq === one.seq);
      return [["m" + one.seq, [one, calls, data.model_calls.get(one.seq), about], () => messagePart(data.id, one, calls, data.model_calls.get(one.seq))],
        ...fold.map((fold) => ["f" + fold.to_seq, fold, () => foldPart(fold)])];
    });
    const covered = data.folds.filter((fold) => fold.send_index === index && !messages.some((one) => one.seq === fold.to_seq));
    const all = [...covered.map((fold) => ["f" + fold.to_seq, fold, () => foldPart(fold)]), ...rows];
    return ["s" + index, [send, all.map(([key, value]) => [key, value])], () => {
      const known = list.querySelector(`[data-key="s${index}"] ol`);
      const rest = known ?? h("ol", { class: "items" });
      settle(rest, all);
      return h("section", { class: "send", "aria-label": `Send ${index}` }, sendHead(index, send), rest);
    }];
  }));
  if (!sends.size) settle(list, [["none", 0, () => h("p", { class: "soft" }, "Nothing was said yet.")]]);
}

function sendHead(index, send) {
  const head = h("header", {}, h("h3", {}, `Send ${index}`));
  if (!send) return head;
  const took = send.ended_at_ms ? `, ${seconds(send.ended_at_ms - send.started_at_ms)}` : "";
  const cost = money(send.cost_nanos);
  head.append(state(send.status), h("span", { class: "soft num" }, `${time(send.started_at_ms)}${took} · ${count(send.rounds, "model call")}, ${count(send.tool_calls, "tool call")} · ${tokens(send.usage)}${cost === null ? "" : ` · cost ${cost}`}${send.attempts > 1 ? ` · taken up ${send.attempts} times` : ""}`));
  if (send.result?.reason) head.append(h("span", { class: "soft" }, send.result.reason));
  return head;
}

function foldPart(fold) {
  return h("li", { class: "item fold" }, h("header", {}, h("b", {}, "Fold"), h("span", {}, `messages ${fold.from_seq} to ${fold.to_seq} became a summary by ${fold.strategy}: ${number(fold.tokens_before)} → ${number(fold.tokens_after)} tokens`)),
    h("details", { "data-fold": "fold" + fold.to_seq }, h("summary", {}, "The summary"), h("p", { class: "text" }, fold.summary)));
}

function messagePart(id, one, calls, made) {
  const { message } = one;
  const end = h("span", { class: "end" });
  if (made) {
    const cost = money(made.call.cost_nanos);
    const stop = ["end", "tool_calls"].includes(made.call.stop) ? "" : ` · ${words(made.call.stop)}`;
    end.append(h("span", { class: "num" }, `${tokens(made.call.usage)}${cost === null ? "" : ` · ${cost}`} · ${seconds(made.call.duration_ms)}${made.call.attempts > 1 ? ` · ${made.call.attempts} attempts` : ""}${stop}`),
      h("a", { href: address(id, "prompt", one.seq), "data-focus": "p" + one.seq }, `Prompt of call ${one.seq}`));
  }
  if (about.can_write && message.role !== "tool" && !calls.length && view?.canFork?.()) end.append(button("Fork here", () => fork(id, one.seq), { kind: "small quiet", title: `Fork behind message ${one.seq}` }));
  const item = h("li", { class: `item ${message.role}` }, h("header", {}, h("b", {}, message.role), h("span", { class: "num" }, `${one.seq}`), h("time", {}, time(one.created_at_ms)), made ? h("span", {}, made.call.model) : null, end));
  for (const part of message.parts) {
    if (part.type === "tool_call") item.append(callPart(id, ...calls.find(([wanted]) => wanted === part)));
    else item.append(contentPart(id, one.seq, part));
  }
  return item;
}

function contentPart(id, seq, part) {
  if (typeof part === "string") return h("p", { class: "soft" }, part); // what was left out
  if (part.type === "text") return h("div", { class: "text" }, part.text);
  if (part.type === "refusal") return h("div", { class: "text" }, h("b", {}, "Refuses: "), part.text);
  if (part.type === "reasoning") return part.text ? h("details", { class: "thought", "data-fold": "r" + seq }, h("summary", {}, "Reasoning"), h("div", { class: "text" }, part.text)) : h("p", { class: "thought" }, "(reasoning that the provider keeps to itself)");
  if (part.type === "tool_result") return h("div", {}, part.content.map((one) => contentPart(id, seq, one)));
  if (part.type === "opaque") return h("p", { class: "soft" }, "(a block of the provider's)");
  return h("p", { class: "soft" }, `(${part.type}: ${part.media_type ?? part.format ?? ""}${part.url ? " elsewhere" : ""})`);
}

function callPart(id, part, call, answer) {
  const status = call?.state ?? "requested";
  const took = call?.started_at_ms && call?.ended_at_ms ? seconds(call.ended_at_ms - call.started_at_ms) : "";
  const args = call?.arguments ?? part.arguments;
  const result = answer?.message.parts[0];
  const box = h("details", { class: "call", "data-fold": part.id }, h("summary", { "data-focus": part.id }, h("code", { class: "name" }, part.name), state(status),
    h("span", { class: "args mono" }, args.slice(0, 200)), call?.attempt > 1 ? h("span", { class: "soft" }, `attempt ${call.attempt}`) : null, h("span", { class: "soft num" }, took)));
  // Built when it is opened: a closed call may hold a great deal.
  const fill = () => {
    if (!box.open || box.children.length > 1) return;
    box.append(h("h4", {}, `Arguments · ${call ? `${call.effect}, ` : ""}${part.id}`), h("pre", { tabindex: "0", "aria-label": "Arguments" }, pretty(args)));
    if (!result) return;
    const shown = h("pre", { tabindex: "0", "aria-label": "Result" }, result.content.map((one) => (one.type === "text" ? one.text : contentPart(id, answer.seq, one))));
    box.append(h("h4", {}, result.is_error ? "Result (an error)" : "Result"), shown);
    const shownChars = result.content.reduce((sum, one) => sum + (one.text?.length ?? 0), 0);
    if (shownChars >= MAY_BE_CUT_CHARS) box.append(button("Show the whole result", async () => {
      const whole = await ask("/api/message", { session: id, seq: answer.seq });
      const content = whole.whole ?? whole.message.message.parts[0].content;
      shown.replaceChildren(...content.map((one) => (one.type === "text" ? said(one.text) : contentPart(id, answer.seq, one))));
    }, { kind: "small" }));
  };
  box.addEventListener("toggle", fill);
  new MutationObserver(fill).observe(box, { attributes: true, attributeFilter: ["open"] });
  return box;
}

// ---- what streams by in this process ----

function livePart(id) {
  let held = 0;
  const text = h("div", { class: "text", "aria-live": "off" });
  const item = h("div", { class: "item live", hidden: true }, h("header", {}, h("b", {}, "streams"), h("span", { class: "soft" }, "not stored yet")), text);
  const list = h("ol", { class: "events", tabindex: "0", "aria-label": "Events" });
  const box = h("details", { class: "panel", open: true, hidden: true }, h("summary", {}, "Events of this process: rounds, calls, tools, hooks, folds"), list);
  const node = h("section", { "aria-label": "Live" }, item, box);
  const clear = () => (text.replaceChildren(), (item.hidden = true), (held = 0));
  return {
    node,
    hear(event) {
      const { type, payload } = event;
      if (type.startsWith("delta.")) {
        if (event.session_id !== id) return;
        item.hidden = false;
        const piece = payload.text ?? (payload.name ? `\n→ ${payload.name} ` : "") + payload.arguments;
        text.append(said(piece));
        held += piece.length;
        if (held > MAX_LIVE_CHARS) clear();
        return;
      }
      if (["stream.reset", "message.appended", "llm.started", "llm.failed", "send.finished", "send.failed"].includes(type) && event.session_id === id) clear();
      box.hidden = false;
      const { result, message, usage, ...told } = payload;
      const from = event.session_id === id ? "" : `${event.session_id} `;
      list.append(h("li", {}, h("time", { class: "num" }, time(event.at_ms)), h("code", {}, type), h("span", {}, from + (result ? words(result.status) : message?.role ? `${message.role} ${told.seq}` : Object.keys(told).length || message !== undefined ? JSON.stringify({ ...told, message }) : ""))));
      while (list.children.length > MAX_EVENTS) list.firstChild.remove();
      list.scrollTop = list.scrollHeight;
    },
  };
}

// ---- the prompt of a call ----

function promptPart(data, body, more) {
  const chosen = Number(more) || null;
  const place = h("div");
  const picker = h("div", { class: "acts" });
  body.append(picker, place);
  let drawn = null;
  return {
    async update() {
      const all = [...data.model_calls.keys()].sort((a, b) => a - b);
      const call = chosen ?? all.at(-1);
      if (call === undefined) return place.replaceChildren(h("p", { class: "soft" }, "No model was asked yet."));
      const at = all.indexOf(call);
      const to = (seq, label) => (seq === undefined ? null : h("a", { href: address(data.id, "prompt", seq), "data-focus": label }, `${label} ${seq}`));
      settle(picker, [["pick", [all[at - 1], all[at + 1], call, all.at(-1)], () => h("span", { class: "acts" }, at > 0 ? to(all[at - 1], "← Call") : null, at < 0 ? to(all.at(-1), "Last call") : to(all[at + 1], "Call →"))]]);
      if (drawn === call) return;
      const found = await ask("/api/prompt", { session: data.id, call });
      drawn = call;
      place.replaceChildren(...promptNodes(data, found));
    },
  };
}

function promptNodes(data, found) {
  for (const name of ["parts", "gone"]) found[name] = records(found[name]);
  const id = data.id;
  const made = found.model_call;
  const usage = made.call.usage;
  const all = Math.max(1, found.parts.reduce((sum, one) => sum + one.segment.tokens, 0));
  const share = h("div", { class: "share", role: "img", "aria-label": "Shares of the prompt" }, found.parts.filter((one) => one.segment.tokens).map((one) => {
    const bar = h("i", { class: one.is_new ? "new" : null, title: `${one.title}: ${number(one.segment.tokens)} tokens` });
    bar.style.flexGrow = String(one.segment.tokens / all);
    return bar;
  }));
  const difference = found.previous_call === null ? "It is the first call of the session."
    : found.reason ? `Compared with call ${found.previous_call}, about ${number(found.shared_tokens)} tokens at the start are the same; ${found.broken_by ? `broken by ${found.broken_by}: ` : "not compared: "}${found.reason}.`
      : `It only grew: about ${number(found.shared_tokens)} tokens at the start are those of call ${found.previous_call}.`;
  const nodes = [
    h("h3", {}, `Call ${found.call}, send ${made.send_index}, round ${made.round}`),
    h("dl", { class: "facts" }, fact("Model", made.call.model), fact("Estimated", `${number(found.estimated_tokens)} tokens`),
      usage ? fact("Counted by the provider", `${number(usage.input_tokens)} tokens, ${number(usage.cached_input_tokens)} of them cached`) : null,
      fact("Words", found.is_exact ? "as this process sent them" : "put together from the log")),
    share,
    h("p", { class: found.broken_by ? "said broken" : "said" }, difference),
  ];
  if (found.lines?.length) nodes.push(h("details", { class: "panel" }, h("summary", {}, "Every difference, in words"), h("ul", {}, found.lines.map((one) => h("li", {}, one)))));
  for (const one of found.parts) nodes.push(promptSegment(id, one, one.is_new ? "new" : "same"));
  if (found.gone.length) nodes.push(h("h3", { class: "gap" }, `Gone since call ${found.previous_call}`));
  for (const one of found.gone) nodes.push(promptSegment(id, one, "gone"));
  if (found.reply) nodes.push(h("h3", { class: "gap" }, "The reply"), h("ul", {}, messagePart(id, found.reply, found.reply.message.parts.filter((one) => one.type === "tool_call").map((one) => [one, data.calls.get(one.id), null]), null)));
  return nodes;
}

function promptSegment(id, one, kind) {
  const tag = kind === "gone" ? h("span", { class: "state bad" }, "gone") : kind === "new" ? h("span", { class: "state good" }, one.left_out || one.messages.some((message) => !message.is_new) ? "grew" : "new") : null;
  const inside = [];
  if (one.text !== null) inside.push(h("pre", { tabindex: "0", "aria-label": "Text" }, one.text));
  for (const tool of records(one.tools)) inside.push(h("p", {}, h("code", {}, tool.name), " ", h("span", { class: "soft" }, tool.description)));
  if (one.left_out) inside.push(h("p", { class: "soft" }, `… ${count(one.left_out, "earlier message")}`));
  for (const message of records(one.messages)) {
    inside.push(h("div", { class: `item ${message.is_new && kind !== "gone" ? "new" : kind === "gone" && message.is_new ? "gone" : ""}` },
      h("header", {}, h("b", {}, message.role), h("span", { class: "num" }, message.seq), message.is_new ? h("span", {}, kind === "gone" ? "not in this call" : "not in the call before") : null),
      message.parts.map((part) => (part.type === "tool_call" ? h("p", {}, h("code", {}, `→ ${part.name} ${part.arguments}`)) : contentPart(id, message.seq, part)))));
  }
  if (!inside.length) inside.push(h("p", { class: "soft" }, one.segment.kind === "left_out" ? "These messages did not fit." : one.segment.kind === "changed" ? "The request was changed on its way." : "Its words are not stored; the digest tells whether they were the same."));
  const details = h("details", { open: kind === "new" || (kind === "same" && one.segment.kind === "messages") }, h("summary", {}, h("b", {}, words(one.title)), tag, h("span", { class: "tokens num" }, `${number(one.segment.tokens)} tokens`)), inside);
  return h("section", { class: "panel part", "aria-label": words(one.title) }, details);
}

// ---- pictures ----

function shorten(text, most) {
  const found = [...plain(text ?? "")];
  return found.length > most ? found.slice(0, most - 1).join("") + "…" : found.join("");
}

function box(x, y, wide, high, status, lines, { href, label, here } = {}) {
  const node = g("g", { class: `node ${KINDS[status] ?? "rest"}${here ? " here" : ""}`, transform: `translate(${x} ${y})` },
    g("rect", { width: wide, height: high, rx: 9 }), g("circle", { class: "dot", cx: 15, cy: 19, r: 4.5 }),
    g("text", { x: 27, y: 23, class: "strong" }, shorten(lines[0], Math.floor((wide - 36) / 7.4))),
    lines.slice(1).map((line, at) => g("text", { x: 14, y: 40 + at * 15, class: "small" }, shorten(line, Math.floor((wide - 20) / 5.9)))));
  if (!href) return node;
  return g("a", { href, "aria-label": label, "aria-current": here ? "page" : null }, node);
}

function treePart(data, body) {
  return {
    async update() {
      const found = await ask("/api/tree", { session: data.id });
      found.nodes = records(found.nodes);
      settle(body, [["tree", found, () => treeNodes(found)]]);
    },
  };
}

function treeNodes(found) {
  const below = new Map();
  const ids = new Set(found.nodes.map((one) => one.id));
  for (const one of found.nodes) {
    const parent = ids.has(one.parent_id) ? one.parent_id : null;
    below.set(parent, [...(below.get(parent) ?? []), one]);
  }
  const [wide, high, stepX, stepY] = [196, 66, 246, 82];
  const nodes = [];
  const edges = [];
  let row = 0;
  let most = 0;
  const place = (one, depth) => {
    const children = below.get(one.id) ?? [];
    const rows = children.map((child) => place(child, depth + 1));
    const y = rows.length ? (rows[0] + rows.at(-1)) / 2 : row++ * stepY;
    const x = depth * stepX;
    most = Math.max(most, depth);
    for (const to of rows) edges.push(g("path", { class: "edge", d: `M${x + wide} ${y + high / 2} C${x + wide + 26} ${y + high / 2} ${x + stepX - 26} ${to + high / 2} ${x + stepX} ${to + high / 2}` }));
    const usage = one.stats.usage;
    nodes.push(box(x, y, wide, high, one.status, [title(one), words(one.status) + (one.owner ? ", runs" : ""), `${number(usage.input_tokens + usage.output_tokens)} tokens${one.stats.cost === null ? "" : `, cost ${Number(one.stats.cost)}`}`],
      { href: address(one.id), label: `${title(one)}: ${words(one.status)}`, here: one.id === found.session_id }));
    return y;
  };
  for (const top of below.get(null) ?? []) place(top, 0);
  const size = [most * stepX + wide + 4, Math.max(row, 1) * stepY - (stepY - high) + 4];
  const rows = found.nodes.map((one) => [sessionLink(one.id, title(one)), state(one.status), one.parent_id ? sessionLink(one.parent_id) : "", number(one.messages), number(one.stats.usage.input_tokens + one.stats.usage.output_tokens), one.stats.cost === null ? "" : String(Number(one.stats.cost))]);
  return h("div", {}, picture(size, edges.concat(nodes), `The tree of ${found.nodes.length} sessions`, found.is_whole ? "Each session with the sub-agents that it set going; tokens and cost count all below." : "The nearest 200 sessions."),
    h("section", { class: "panel" }, h("h3", {}, "The same as a table"), table(["Session", "State", "Made by", "Messages", "Tokens", "Cost"], rows, "Sessions of the tree", [3, 4, 5])));
}

function picture([wide, high], inside, label, caption) {
  const drawn = g("svg", { width: wide, height: high, viewBox: `-2 -2 ${wide + 2} ${high + 2}`, role: "group", "aria-label": label }, inside);
  // It becomes as small as can be read; what is wider still is scrolled inside of its frame.
  drawn.style.minWidth = `${Math.round(wide * LEAST_SCALE)}px`;
  return h("figure", { class: "picture" }, h("figcaption", {}, caption), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Picture: ${label}` }, drawn));
}

function workflowPart(data, body) {
  return {
    async update() {
      if (!data.run) return settle(body, [["runs", data.runs, () => h("section", { class: "panel" }, h("h3", {}, "Workflows of this session"),
        data.runs.length ? table(["Run", "State", "Begun"], data.runs.map((one) => [h("a", { href: address(one.session_id, "workflow") }, one.name), state(one.state), moment(one.created_at_ms)]), "Runs") : h("p", { class: "soft" }, "None."))]]);
      settle(body, [["run", data.run, () => workflowNodes(data.run)]]);
    },
  };
}

const LEAF = [168, 54];
const LEAST_SCALE = 0.7;

function statesOf(steps) {
  const counts = new Map();
  for (const one of steps) counts.set(one.state, (counts.get(one.state) ?? 0) + 1);
  return [...counts];
}

function worst(steps) {
  return ["failed", "waiting", "started", "completed"].find((one) => steps.some((step) => step.state === one)) ?? steps[0]?.state ?? "new";
}

// Lay a node of a workflow out: its size, and what draws it at a place. A sequence goes to the right, all else down.
function layOut(node, steps, isRoot) {
  const children = node.steps ?? (node.body ? [node.body] : node.cases ? [...records(node.cases).map((one) => one.then), node.else].filter(Boolean) : null)?.filter((one) => typeof one === "object");
  if (!children) {
    const own = steps.filter((one) => node.id !== undefined && one.node_id === node.id);
    const status = own.length ? worst(own) : "new";
    const said = own.length > 1 ? statesOf(own).map(([name, count]) => `${count} ${words(name)}`).join(", ") : own.length ? words(status) + (own[0].attempt > 1 ? `, attempt ${own[0].attempt}` : "") : "not begun";
    const href = own.length === 1 && own[0].child_session_id ? address(own[0].child_session_id) : null;
    const name = node.id ?? node.spec?.name ?? node.type;
    return { size: LEAF, draw: (x, y) => [box(x, y, LEAF[0], LEAF[1], status, [name, `${node.type} · ${said}`], { href, label: `${name}: ${said}` })] };
  }
  const isRow = node.type === "sequence";
  const gap = isRow ? 40 : 14;
  const inner = children.map((one) => layOut(one, steps, false));
  const frame = !(isRow && isRoot);
  const pad = frame ? 14 : 0;
  const top = frame ? 32 : 0;
  const along = inner.reduce((sum, one) => sum + one.size[isRow ? 0 : 1] + gap, -gap);
  const across = Math.max(...inner.map((one) => one.size[isRow ? 1 : 0]));
  const name = `${node.type}${node.id ? ` ${node.id}` : ""}${node.items_from ? ` over ${node.items_from}` : ""}${node.max_iterations ? ` up to ${node.max_iterations} times` : ""}`;
  const least = frame ? plain(name).length * 6.2 + 30 : 0;
  const size = isRow ? [along + 2 * pad, across + pad + top] : [Math.max(across + 2 * pad, Math.min(least, 420)), along + pad + top];
  const draw = (x, y) => {
    const drawn = [];
    if (frame) drawn.push(g("g", { class: "group" }, g("rect", { x, y, width: size[0], height: size[1], rx: 11 }), g("text", { x: x + 13, y: y + 20, class: "small" }, shorten(name, 66))));
    let at = 0;
    inner.forEach((one, place) => {
      const left = x + pad + (isRow ? at : (size[0] - 2 * pad - one.size[0]) / 2);
      const up = y + top + (isRow ? (across - one.size[1]) / 2 : at);
      if (isRow && place) {
        const middle = y + top + across / 2;
        drawn.push(g("path", { class: "edge", d: `M${left - gap + 4} ${middle} H${left - 10}` }), g("path", { class: "tip", d: `M${left - 4} ${middle} l-8 -4.5 v9 z` }));
      }
      drawn.push(...one.draw(left, up));
      at += one.size[isRow ? 0 : 1] + gap;
    });
    return drawn;
  };
  return { size, draw };
}

function workflowNodes(run) {
  const root = run.spec?.root;
  const drawn = root && typeof root === "object" ? layOut(root, run.steps, true) : null;
  const rows = run.steps.map((one) => [h("code", {}, one.path), one.kind, state(one.state), String(one.attempt), one.started_at_ms && one.ended_at_ms ? seconds(one.ended_at_ms - one.started_at_ms) : "", one.child_session_id ? sessionLink(one.child_session_id, "session") : ""]);
  return h("div", {}, h("div", { class: "title acts" }, h("h3", {}, run.name), state(run.state)),
    run.error ? h("pre", { tabindex: "0", "aria-label": "Error" }, JSON.stringify(run.error, null, 2)) : null,
    drawn ? picture(drawn.size.map((one) => one + 4), drawn.draw(1, 1), `The workflow ${plain(run.name)}, ${run.steps.length} steps`, "Each step with where it stands; one that an agent made leads to its session.") : null,
    h("section", { class: "panel" }, h("h3", {}, "Steps"), table(["Step", "Kind", "State", "Attempt", "Took", "Agent"], rows, "Steps of the run", [3, 4])),
    h("details", { class: "panel", "data-fold": "io" }, h("summary", {}, "Input and output"), h("pre", { tabindex: "0", "aria-label": "Input and output" }, JSON.stringify({ input: run.input, output: run.output }, null, 2))));
}

// ---- budgets and cost ----

function costPart(data, body) {
  return {
    async update() {
      const { stats, budget } = data;
      const calls = [...data.model_calls.values()].sort((a, b) => b.reply_seq - a.reply_seq);
      const used = stats.usage;
      const figures = [["Input tokens", number(used.input_tokens), `${number(used.cached_input_tokens)} cached`], ["Output tokens", number(used.output_tokens), `${number(used.reasoning_tokens)} reasoning`],
        ["Cost", stats.cost === null ? "unknown" : String(Number(stats.cost)), "in the price table's currency"], ["Model calls", number(stats.model_calls), count(stats.sends, "send")],
        ["Tool calls", number(stats.tool_calls), count(stats.messages, "message")], ["Sub-agents", number(stats.children), `${number(stats.children_usage.input_tokens + stats.children_usage.output_tokens)} tokens`], ["Stored", `${number(Math.ceil(stats.stored_bytes / 1024))} KiB`, ""]];
      settle(body, [
        ["figures", stats, () => h("dl", { class: "grid" }, figures.map(([name, value, more]) => h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value, h("small", {}, more)))))],
        ["budget", budget, () => h("section", { class: "panel" }, h("h3", {}, "Budget of the last send"), budget ? budgetNodes(budget) : h("p", { class: "soft" }, "Nothing limits it."))],
        ["calls", calls.map((one) => one.reply_seq), () => h("section", { class: "panel" }, h("h3", {}, "Model calls"), table(["Call", "Model", "Input", "Cached", "Output", "Cost", "Took"],
          calls.map((one) => [h("a", { href: address(data.id, "prompt", one.reply_seq) }, String(one.reply_seq)), one.call.model, number(one.call.usage?.input_tokens), number(one.call.usage?.cached_input_tokens), number(one.call.usage?.output_tokens), money(one.call.cost_nanos) ?? "", seconds(one.call.duration_ms)]), "Model calls", [2, 3, 4, 5, 6]))],
      ]);
    },
  };
}

function budgetNodes(budget) {
  const limits = budget.limits;
  const lines = [["Tokens", limits.max_tokens, budget.spent.tokens, budget.reserved.tokens], ["Cost", limits.max_cost === null ? null : Number(limits.max_cost), budget.spent.cost_nanos / 1e9, budget.reserved.cost_nanos / 1e9], ["Tool calls", limits.max_tool_calls, budget.spent.tool_calls, budget.reserved.tool_calls]];
  const nodes = lines.filter(([, limit]) => limit !== null).map(([name, limit, spent, held]) => {
    const shown = (value) => (name === "Cost" ? String(Number(value.toPrecision(4))) : number(value));
    const text = `${shown(spent)} of ${shown(limit)}${held ? `, ${shown(held)} held` : ""}`;
    return h("div", { class: "meter" }, h("span", {}, name), h("meter", { min: 0, max: limit || 1, value: spent + held, high: limit * 0.9 || 1, "aria-label": `${name}: ${text}` }), h("span", { class: "num" }, text));
  });
  if (budget.deadline_at_ms) nodes.push(h("p", { class: "soft" }, `Its time is over at ${moment(budget.deadline_at_ms)}.`));
  if (budget.lost.tokens) nodes.push(h("p", { class: "soft" }, `${number(budget.lost.tokens)} tokens of it went to calls without a reply.`));
  for (const one of records(budget.children)) nodes.push(h("section", { class: "panel" }, h("h4", {}, "Pays for ", sessionLink(one.key.session_id), `, send ${one.key.send_index}`), budgetNodes(one)));
  return nodes;
}

// ---- the way of a page ----

let isUpdating = false;
let isStale = false;

// One look at a time; what changes meanwhile is looked at behind it.
async function refresh() {
  if (isUpdating) return void (isStale = true);
  isUpdating = true;
  try {
    do {
      isStale = false;
      await readSessions();
      await view?.update();
    } while (isStale);
  } catch (error) {
    if (error.status === 401) closed(error.message);
    else if (error.code === "session.not_found") $("main").replaceChildren(h("p", {}, error.message));
    else if (error.status) complain(error.message);
    else if (!error.isAway) {
      complain(`This cannot be shown: ${error.message}`);
      console.error(error);
    }
  } finally {
    isUpdating = false;
    document.body.dataset.ready = String(Number(document.body.dataset.ready ?? 0) + 1);
  }
}

function listen() {
  source?.close();
  source = new EventSource(`/api/live?${new URLSearchParams(route.id ? { session: route.id } : { limit: shownSessions })}`);
  source.addEventListener("open", () => line(true));
  source.addEventListener("error", () => line(false));
  source.addEventListener("changed", refresh);
  source.addEventListener("told", (event) => view?.live?.hear(JSON.parse(event.data)));
  source.addEventListener("notice", (event) => {
    const { text, code } = JSON.parse(event.data);
    complain(code ? `${text} [${code}]` : text);
  });
}

function line(isOn) {
  $("line").className = isOn ? "line on" : "line";
  const text = isOn ? "live" : "the inspector does not answer";
  if ($("line").textContent !== text) $("line").textContent = text;
}

function go() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  let id = null;
  try {
    id = parts[0] === "session" && parts[1] ? decodeURIComponent(parts[1]) : null;
  } catch {
    // Half an escape names no session.
  }
  const changed = id !== route.id || !view;
  route = { id, what: parts[2] || "timeline", more: parts[3] || "" };
  document.title = "power-loop inspector";
  view = id ? sessionPage(id, route.what, route.more) : overview();
  $("main").scrollTop = 0;
  if (changed || !source) listen();
  return refresh();
}

function closed(text) {
  source?.close();
  view = null;
  line(false);
  $("main").replaceChildren(h("header", { class: "head" }, h("h2", {}, "The door is closed")), h("p", {}, text));
}

async function begin() {
  // The token stands behind the #, which no server and no log sees; here it becomes a cookie, and leaves the address.
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + "#/");
  try {
    if (token) await tell("/api/enter", { token });
    about = await ask("/api/about");
  } catch (error) {
    return closed(error.message);
  }
  $("mode").textContent = about.can_drive ? "may answer, resume, fork and cancel" : about.can_write ? "may fork and cancel" : "only looks";
  $("filter").addEventListener("input", drawSessions);
  $("finished").addEventListener("change", drawSessions);
  $("more").addEventListener("click", doing($("more"), async () => {
    shownSessions = Math.min(shownSessions + 50, 500);
    listen();
    await readSessions();
  }));
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("main").focus();
  });
  addEventListener("hashchange", async () => {
    await go();
    // Who follows a link with a key or a screen reader is where it leads.
    if (!$("side").contains(document.activeElement) && document.activeElement === document.body) $("main").focus();
  });
  return go();
}

begin();
