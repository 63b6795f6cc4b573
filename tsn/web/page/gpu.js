// The agent's program on the browser's WebGPU: buffers, pipelines and groups of a plan that
// `tsn/web/examples/webgpu_plan.rs` wrote. One run is one pass and one submission.
"use strict";

const PARAMS_BINDING = 9; // as in kernels/src/contract/wgsl.rs; storage bindings are below it
const PARAMS_BYTES = 256;

// Throws, with a sentence, where there is no WebGPU or it refuses the plan.
async function openGpu(plan) {
  if (!navigator.gpu) throw new Error("this browser has no WebGPU");
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("WebGPU found no adapter");
  const device = await adapter.requestDevice();
  let broken = null;
  device.lost.then((info) => { broken ??= `the device was lost: ${info.message || info.reason}`; });
  device.addEventListener("uncapturederror", (event) => { broken ??= event.error.message; });

  const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const memory = (size, usage) => device.createBuffer({ size: Math.max(PARAMS_BYTES, size), usage });
  const arenas = plan.arenas.map((bytes) => memory(bytes, STORAGE | COPY_SRC | COPY_DST));
  const absent = memory(PARAMS_BYTES * PARAMS_BINDING, STORAGE); // a range for each binding: none may overlap
  const params = memory(PARAMS_BYTES * plan.params.length, UNIFORM | COPY_DST);
  plan.params.forEach((words, at) => device.queue.writeBuffer(params, PARAMS_BYTES * at, new Uint32Array(words)));
  const [outArena, outAt, outBytes] = plan.output;
  const result = memory(outBytes, MAP_READ | COPY_DST);

  // A layout for every list of bindings, a pipeline for every entry point of a text.
  const once = (map, key, make) => map.get(key) ?? map.set(key, make()).get(key);
  const [layouts, modules, pipelines] = [new Map(), new Map(), new Map()];
  const layoutOf = (bindings) => once(layouts, String(bindings), () => device.createBindGroupLayout({
    entries: [...bindings, PARAMS_BINDING].map((binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: binding === PARAMS_BINDING ? "uniform" : "storage" },
    })),
  }));
  const launches = await Promise.all(plan.launches.map(async (launch) => {
    const layout = layoutOf(launch.binds.map(([binding]) => binding));
    const module = once(modules, launch.text, () => device.createShaderModule({ code: plan.texts[launch.text] }));
    const pipeline = await once(pipelines, `${launch.text} ${launch.entry}`, () => device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: launch.entry },
    }));
    const entries = launch.binds.map(([binding, arena, offset, size]) => ({
      binding,
      resource: arena === undefined
        ? { buffer: absent, offset: PARAMS_BYTES * binding, size: PARAMS_BYTES }
        : { buffer: arenas[arena], offset, size },
    }));
    const own = { buffer: params, offset: PARAMS_BYTES * launch.params, size: PARAMS_BYTES };
    const group = device.createBindGroup({ layout, entries: [...entries, { binding: PARAMS_BINDING, resource: own }] });
    return { pipeline, group, groups: launch.groups };
  }));

  function run(read) {
    const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    for (const { pipeline, group, groups } of launches) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...groups);
    }
    pass.end();
    if (read) encoder.copyBufferToBuffer(arenas[outArena], outAt, result, 0, outBytes);
    device.queue.submit([encoder.finish()]);
  }

  function write(name, data) {
    const place = plan.buffers[name];
    if (!place) throw new Error(`the plan has no buffer ${name}`);
    const whole = new Uint8Array(place[2]); // whole words
    whole.set(data);
    device.queue.writeBuffer(arenas[place[0]], place[1], whole);
  }

  const { vendor, architecture, device: model, description } = adapter.info ?? {};
  const gpu = {
    name: [vendor, architecture, model, description].filter((part) => part).join(" ") || "unnamed adapter",
    runs: 0,
    destroy: () => device.destroy(),
    // Does what the messages of the module say (`messages` in tsn/web/src/lib.rs); the scores of the last run.
    async play(messages) {
      const list = [], view = new DataView(messages.buffer, messages.byteOffset, messages.byteLength);
      for (let at = 0; at < messages.length;) {
        const [named, length] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
        const from = at + 8 + named;
        list.push([new TextDecoder().decode(messages.subarray(at + 8, from)), messages.subarray(from, from + length)]);
        at = from + length;
      }
      list.forEach(([name, data], at) => {
        if (name) return write(name, data);
        gpu.runs += 1;
        run(at === list.length - 1);
      });
      await result.mapAsync(GPUMapMode.READ);
      const scores = new Float32Array(result.getMappedRange().slice(0, outBytes));
      result.unmap();
      if (broken) throw new Error(broken);
      return scores;
    },
  };
  if (broken) throw new Error(broken);
  return gpu;
}
