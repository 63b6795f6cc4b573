// The page of `tsn-web`: runs the module, draws what its `view` says. Plain JavaScript, no packages.
"use strict";

const TRACK_M = 2.4; // where the cart leaves the track
const HIGHEST_M = 2.8; // cart and longest pole of the suites
const STEPS_SHOWN = 500;
const element = (id) => document.getElementById(id);
const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// The module: one player, and its memory as numbers.
async function load(seed) {
  const module = bytesOf(MODULE);
  const { instance } = await WebAssembly.instantiate(module, {});
  const wasm = instance.exports;
  const text = () => new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, wasm.text(), wasm.text_len()));
  const must = (done) => { if (!done) throw new Error(text()); };
  const bank = bytesOf(BANK);
  const at = wasm.input(bank.length);
  new Uint8Array(wasm.memory.buffer, at, bank.length).set(bank);
  must(wasm.open(seed));
  const tasks = text().trim().split("\n").map((line) => {
    const [name, ...changes] = line.split("\t");
    return { name, changes };
  });
  const t = tasks.length;
  const player = {
    tasks,
    moduleBytes: module.length,
    bankBytes: bank.length,
    gpu: null, // runs the agent's program, or the module does
    use: (gpu) => {
      player.gpu = gpu;
      must(wasm.relay(gpu ? 1 : 0));
    },
    // Scores of the actions in the last step.
    outputs: () => new Float32Array(wasm.memory.buffer, wasm.outputs(), wasm.outputs_len()),
    step: async () => {
      if (!player.gpu) return must(wasm.step());
      must(wasm.decide());
      const messages = new Uint8Array(wasm.memory.buffer, wasm.messages(), wasm.messages_len()).slice();
      try {
        player.outputs().set(await player.gpu.play(messages));
      } catch (error) {
        // The module decides this step, and those that come.
        player.use(null);
        [state.gpu, state.wanted, state.note] = [null, null, `WebGPU stopped, the CPU decides: ${error.message}`];
      }
      must(wasm.act());
    },
    setWorld: (task) => must(wasm.set_world(task)),
    // The order is that of `view` in tsn/web/src/lib.rs.
    view: () => {
      const v = new Float64Array(wasm.memory.buffer, wasm.view(), 12 + 2 * t);
      const [x, angle, length, force, tau, step, episodes, falls, world, routed, upright, noticed] = v;
      const probability = v.slice(12, 12 + t), score = v.slice(12 + t);
      return { x, angle, length, force, tau, step, episodes, falls, world, routed, upright, noticed, probability, score };
    },
  };
  return player;
}

const state = { paused: false, speed: 1, owed: 0, last: null, times: [], shown: [], gpu: null, wanted: null, note: "" };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A canvas at the size and sharpness of the screen; lengths are CSS pixels.
function canvas(id) {
  const node = element(id), ratio = window.devicePixelRatio || 1;
  const [width, height] = [node.clientWidth, node.clientHeight];
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (node.width !== w || node.height !== h) [node.width, node.height] = [w, h];
  const context = node.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

function drawScene(v) {
  const [c, width, height] = canvas("scene");
  const middle = width / 2, ground = height - 28;
  const perMetre = Math.min(width / (2 * TRACK_M + 0.6), ground / HIGHEST_M);
  const [track, cart, pole, quiet] = ["--track", "--cart", "--pole", "--quiet"].map(colour);
  c.strokeStyle = track;
  c.fillStyle = quiet;
  c.font = "12px system-ui, sans-serif";
  c.textAlign = "center";
  c.beginPath();
  c.moveTo(middle - TRACK_M * perMetre, ground);
  c.lineTo(middle + TRACK_M * perMetre, ground);
  for (const m of [-TRACK_M, -1, 0, 1, TRACK_M]) {
    const limit = Math.abs(m) === TRACK_M;
    c.moveTo(middle + m * perMetre, ground - (limit ? 14 : 4));
    c.lineTo(middle + m * perMetre, ground + 4);
    c.fillText(`${m} m`, middle + m * perMetre, ground + 18);
  }
  c.stroke();
  const x = middle + v.x * perMetre, [w, h] = [0.4 * perMetre, 0.2 * perMetre], axle = ground - h;
  c.fillStyle = cart;
  c.fillRect(x - w / 2, axle, w, h - 2);
  // The push of this step, as an arrow on the side that it comes from.
  const side = Math.sign(v.force), from = x - side * (w / 2 + 6), long = 0.03 * Math.abs(v.force) * perMetre;
  c.strokeStyle = c.fillStyle = quiet;
  c.lineWidth = 2;
  c.beginPath();
  c.moveTo(from - side * long, axle + h / 2);
  c.lineTo(from - side * 6, axle + h / 2);
  c.stroke();
  c.beginPath();
  c.moveTo(from, axle + h / 2);
  c.lineTo(from - side * 8, axle + h / 2 - 4);
  c.lineTo(from - side * 8, axle + h / 2 + 4);
  c.fill();
  c.strokeStyle = pole;
  c.lineWidth = Math.max(4, 0.06 * perMetre);
  c.lineCap = "round";
  c.beginPath();
  c.moveTo(x, axle);
  c.lineTo(x + 2 * v.length * perMetre * Math.sin(v.angle), axle - 2 * v.length * perMetre * Math.cos(v.angle));
  c.stroke();
  c.fillStyle = track;
  c.beginPath();
  c.arc(x, axle, 4, 0, 7);
  c.fill();
  c.lineWidth = 1;
  c.lineCap = "butt";
}

// For each of the last steps two marks in the lane of a task: the world's, and the one that is played.
function drawHistory(tasks) {
  const [c, width, height] = canvas("history");
  const lane = height / tasks.length, one = width / STEPS_SHOWN;
  const [bar, chosen, quiet, line] = ["--bar", "--chosen", "--quiet", "--line"].map(colour);
  c.font = "12px system-ui, sans-serif";
  tasks.forEach((task, at) => {
    c.fillStyle = quiet;
    c.fillText(task.name, 0, at * lane + 11);
    c.fillStyle = line;
    c.fillRect(0, (at + 1) * lane - 1, width, 1);
  });
  state.shown.forEach(([world, routed], at) => {
    const x = Math.floor(width - (state.shown.length - at) * one), wide = Math.ceil(one);
    c.fillStyle = bar;
    c.fillRect(x, world * lane + lane * 0.5, wide, lane * 0.2);
    c.fillStyle = chosen;
    c.fillRect(x, routed * lane + lane * 0.7, wide, lane * 0.2);
  });
}

function nats(score, best) {
  const below = best - score;
  if (below < 0.05) return "0.0";
  return `-${below < 1000 ? below.toFixed(1) : below.toExponential(1)}`;
}

function show(player) {
  const v = player.view(), best = Math.max(...v.score);
  drawScene(v);
  drawHistory(player.tasks);
  player.tasks.forEach((task, at) => {
    task.row.classList.toggle("played", at === v.routed);
    task.fill.style.width = `${100 * v.probability[at]}%`;
    task.nats.textContent = nats(v.score[at], best);
    task.button.setAttribute("aria-pressed", String(at === v.world));
  });
  const changes = player.tasks[v.world].changes, parts = [];
  for (let i = 0; i < changes.length; i += 2) parts.push(`${changes[i]} ${changes[i + 1]}`);
  element("physics").textContent = `physics: ${parts.join(", ") || "default"}`;
  const steps = (n) => `${n} step${n === 1 ? "" : "s"} (${Math.round(1000 * n * v.tau)} ms)`;
  element("world").textContent = player.tasks[v.world].name;
  element("routed").textContent = player.tasks[v.routed].name;
  element("noticed").textContent = v.noticed < 0 ? "not yet" : steps(v.noticed);
  element("upright").textContent = `${(v.upright * v.tau).toFixed(1)} s`;
  element("step").textContent = v.step;
  element("episodes").textContent = v.episodes;
  element("falls").textContent = v.falls;
  const mean = state.times.reduce((sum, ms) => sum + ms, 0) / Math.max(1, state.times.length);
  element("decision").textContent = `${mean.toFixed(2)} ms`;
  element("device").textContent = player.gpu ? `WebGPU, ${player.gpu.name}` : "CPU, wasm32";
  element("runs").textContent = state.gpu?.runs ?? "none";
  element("note").textContent = state.note;
  element("note").hidden = !state.note;
  element("webgpu").disabled = !state.gpu;
  for (const [id, chosen] of [["cpu", !player.gpu], ["webgpu", player.gpu]]) {
    element(id).setAttribute("aria-pressed", String(Boolean(chosen)));
  }
}

async function advance(player) {
  if (state.wanted !== player.gpu) {
    player.use(state.wanted);
    state.times = [];
  }
  const begin = performance.now();
  await player.step();
  state.times.push(performance.now() - begin);
  if (state.times.length > 100) state.times.shift();
  const { world, routed } = player.view();
  state.shown.push([world, routed]);
  if (state.shown.length > STEPS_SHOWN) state.shown.shift();
}

// Simulated time follows the clock times the speed; what a slow machine cannot keep up with is dropped.
async function frame(player, now) {
  if (!state.paused) {
    state.owed += (state.speed * (now - (state.last ?? now))) / 1000;
    const { tau } = player.view(), stop = performance.now() + 30;
    while (state.owed >= tau && performance.now() < stop) {
      await advance(player);
      state.owed -= tau;
    }
    state.owed = Math.min(state.owed, 5 * tau);
  }
  state.last = now;
  show(player);
  requestAnimationFrame((later) => guarded(() => frame(player, later)));
}

async function guarded(act) {
  try {
    await act();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  element("problem").textContent = `The agent stopped: ${error.message}`;
  element("problem").hidden = false;
  document.body.dataset.state = "failed";
}

function build(player) {
  const made = (tag, classes, parent) => {
    const node = document.createElement(tag);
    node.className = classes;
    parent.append(node);
    return node;
  };
  player.tasks.forEach((task, at) => {
    task.button = made("button", "", element("worlds"));
    task.button.type = "button";
    task.button.textContent = task.name;
    task.button.addEventListener("click", () => guarded(() => player.setWorld(at)));
    task.row = made("div", "task", element("tasks"));
    made("span", "name", task.row).textContent = task.name;
    task.fill = made("div", "", made("div", "rail", task.row));
    task.nats = made("span", "nats", task.row);
  });
  const pause = element("pause");
  pause.addEventListener("click", () => {
    state.paused = !state.paused;
    pause.textContent = state.paused ? "Go on" : "Pause";
  });
  const speeds = document.querySelectorAll(".speed");
  speeds.forEach((button) => button.addEventListener("click", () => {
    state.speed = Number(button.dataset.speed);
    speeds.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  }));
  element("module").textContent = `${(player.moduleBytes / 1024).toFixed(0)} KiB of wasm`;
  element("bank").textContent = `${(player.bankBytes / 1024).toFixed(0)} KiB`;
  element("cpu").addEventListener("click", () => { state.wanted = null; });
  element("webgpu").addEventListener("click", () => { state.wanted = state.gpu; });
}

// WebGPU where the browser has it; why not, where it has none.
async function findGpu() {
  try {
    state.gpu = state.wanted = await openGpu(PLAN);
  } catch (error) {
    state.note = `The CPU decides: ${error.message}.`;
  }
}

async function start() {
  const player = await load(Date.now() & 0xffff);
  await findGpu();
  build(player);
  document.body.dataset.state = "running";
  requestAnimationFrame((now) => guarded(() => frame(player, now)));
}

start().catch(fail);
