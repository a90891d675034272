// The model, its kernels and steps, and one value followed from the spec to the code.

VIEWS.overview = () => {
  const steps = stepsNow(), plan = planNow(), cost = R.costs[state.program];
  const routers = R.blocks.flatMap((block) => block.routers);
  const at = cost && cost.cost.total.at, quarter = at && at.find((it) => it.density === 0.25);
  const example = steps.findIndex((step) => R.places[step.place].line && proofs(functionNow().name).has(step.nodes[0]));
  const tile = (number, what) => h("div", { class: "tile" }, h("b", null, number), h("span", null, what));
  const card = (href, title, text) => h("a", { class: "card", href }, h("b", null, title), h("p", null, text));
  return [h("h1", null, R.title), h("p", { class: "lead" }, R.what),
    h("div", { class: "tiles" },
      tile(R.blocks.length, `blocks, ${R.blocks.filter((block) => block.routers.length).length} of them with a router`),
      plan && tile(steps.length, `steps run ${new Set(steps.map((step) => step.kernel)).size} kernels`),
      quarter && tile(time(quarter.time_ns), `predicted for ${cost.cost.tokens} tokens at density 0.25; ${time(quarter.masked_ns)} if all were computed and masked`),
      programNow() && tile(bytes(programNow().constant_bytes), "constants"),
      plan && tile(`${plan.functions.find((it) => it.name === functionNow().name).row_bytes} B`, "activations a token")),
    h("h2", null, "Where to look"),
    h("div", { class: "cards" },
      card("#/kernels", "Which ops became a kernel?", "Every kernel lists the ops that are in it, the steps that run it, and its code."),
      card(example >= 0 ? to.kernel(steps[example].kernel) : "#/rewrites", "Where did a norm go?", "A kernel shows which rules made its ops out of others, with the proof."),
      card("#/cost", "What does a block cost at 10 %?", "Move a block's density and see its time; from where on masking would be no slower."),
      card("#/steps", "Which line of the spec made a step?", "Each step names its block, its line of the spec, and what it reads and writes."),
      card("#/graph", "How did the graph change?", "The graph after each pass, block by block, equal blocks once."),
      card("#/memory", "What lies where in memory?", "The arena over the steps: what is alive when, and what reuses its place.")),
    routers.length > 0 && [h("h2", null, "Who executes how much"), blockRows()],
    R.promises && [h("h2", null, "Promises"), h("ul", null, R.promises.map(([name, holds, text]) => h("li", null, h("b", null, holds ? "✓ " : "✗ "), code(name), " — ", text)))]];
};

function blockRows() {
  return h("div", { class: "blocks" }, R.blocks.map((block, idx) => {
    const deciding = block.routers.length || !block.under ? block.routers : [block.under], shares = deciding.map((router) => router.density);
    const share = shares.length ? Math.max(...shares) : 1, dense = !shares.length;
    return h("a", { class: "blockrow", href: to.block(idx) }, h("b", null, `block ${idx}`), code(block.block),
      h("span", { class: dense ? "bar dense" : "bar" }, h("i", { style: `width:${100 * share}%` })),
      h("span", { class: "soft" }, dense ? "every token" : shares.map(percent).join(", "), dense ? "" : ` · ${[...new Set(deciding.map((router) => router.kind))].join(", ")}`));
  }));
}

VIEWS.model = () => [h("h1", null, "Model and spec"), h("p", { class: "lead" }, R.written ? "The spec as it is written, and the blocks that it stacks." : "The resolved spec, every default written out, and the blocks that it stacks.", " Bars are the share of the tokens that a router lets execute; hatched blocks have no router. Click a line to see what it became."),
  h("div", { class: "two" }, h("section", null, R.written && h("p", { class: "soft" }, code(R.written)), specView([])), blockRows()),
  R.written && h("details", { id: "resolved" }, h("summary", null, "The resolved spec, every default written out"), h("pre", null, R.resolved))];

VIEWS.spec = (line) => {
  const number = Number(line), text = R.spec.split("\n")[number - 1];
  if (text === undefined) return null;
  const places = R.places.map((place, idx) => [place, idx]).filter(([place]) => place.line === number);
  const here = new Set(places.map(([, idx]) => idx)), of = functionNow(), plan = planNow();
  const steps = stepsNow().map((step, idx) => [step, idx]).filter(([step]) => here.has(step.place));
  const blocks = [...new Set(places.map(([place]) => blockOf(place.name)).filter((it) => it !== null))];
  const nodes = legalOf(of).nodes.filter((node) => here.has(node[PLACE])).length;
  return [h("div", { class: "crumbs" }, link("#/model", "Model and spec")), h("h1", null, `Line ${number} of the spec`),
    h("div", { class: "two" }, specView([number]), h("section", null,
      places.length ? h("p", null, `Made ${plural(nodes, "value")} of the graph and ${plural(steps.length, "step")}`, blocks.length ? [", in blocks ", blocks.map((block, idx) => [idx ? ", " : "", link(to.block(block), block)])] : "", ".")
        : h("p", null, "No op comes from this line alone: it names a part, or sets what the whole model uses."),
      steps.length > 0 && stepTable(steps, plan)))];
};

function stepTable(steps, plan) {
  return table([["step"], ["kernel"], ["where"], ["spec"], ["ops"]], steps.map(([step, number]) => [
    link(to.step(number), `step ${number}`), link(to.kernel(step.kernel, plan), code(plan.kernels[step.kernel].symbol)), placeLink(step.place), lineLink(R.places[step.place].line),
    h("span", { class: "soft mono" }, opsOf(step).join(" · "))]));
}
const opsOf = (step) => step.nodes.map((number) => legalOf(functionNow()).nodes[number]).filter(Boolean).map((node) => node[OP]);

VIEWS.block = (text) => {
  const idx = Number(text), block = R.blocks[idx];
  if (!block) return null;
  const steps = stepsNow().map((step, number) => [step, number]).filter(([step]) => blockOf(placeName(step.place)) === idx);
  const name = `blocks.${idx}`, cost = R.costs[state.program], layer = cost && cost.cost.layers.find((it) => it.name === name);
  const lines = [...new Set(R.places.filter((place) => blockOf(place.name) === idx).map((place) => place.line).filter(Boolean))];
  const same = R.blocks.map((it, at) => [it, at]).filter(([it, at]) => it.block === block.block && at !== idx).map(([, at]) => at);
  return [h("div", { class: "crumbs" }, link("#/model", "Model and spec")), h("h1", null, `Block ${idx}, `, code(block.block)),
    h("p", { class: "lead" }, same.length ? ["The same as ", plural(same.length, "block"), ": ", same.map((at, i) => [i ? ", " : "", link(to.block(at), at)]), "."] : "No other block is like it."),
    block.routers.length ? block.routers.map((router) => h("p", null, code(router.name), ` is decided by router ${router.router} (${router.kind}): ${percent(router.density)} of the tokens execute.`)) : h("p", null, "It runs for every token."),
    layer && [h("h2", null, `Predicted cost on ${cost.target}`), h("p", { class: "soft" }, `${cost.cost.tokens} tokens, every router at one density. ${cost.note}`), costTable([layer]), h("p", null, link("#/cost", "All blocks, with sliders"))],
    h("h2", null, "Steps"), stepTable(steps, planNow()), h("h2", null, "Graph"), graphTabs((of, phase) => to.phase(phase, of), null),
    h("h2", null, "Spec"), specView(lines)];
};

VIEWS.kernels = () => {
  const plan = planNow(), program = programNow();
  if (!plan) return [h("h1", null, "Kernels"), h("p", null, "There is no plan.")];
  const steps = stepsNow(), runs = (idx) => steps.filter((step) => step.kernel === idx).length;
  return [h("h1", null, "Kernels"), h("p", { class: "lead" }, `${plan.kernels.length} kernels for ${program ? program.target : plan.name} in ${plan.dtype}, all functions together. Equal work in equal blocks is one kernel.`),
    table([["kernel"], ["runs a step", 1], ["in blocks"], ["ops in it"], ["how it is started"]], plan.kernels.map((kernel, idx) => {
      const own = steps.filter((step) => step.kernel === idx), blocks = [...new Set(own.map((step) => blockOf(placeName(step.place))).filter((it) => it !== null))];
      return [link(to.kernel(idx, plan), code(kernel.symbol)), runs(idx), ranges(blocks), h("span", { class: "soft mono" }, own.length ? opsOf(own[0]).join(" · ") : "only in other functions"), h("span", { class: "soft" }, program ? program.launches[idx] : "")];
    }))];
};
/** 0, 1, 2, 5 as "0–2, 5". */
function ranges(numbers) {
  const found = [];
  for (const number of numbers) { const last = found[found.length - 1]; if (last && last[1] === number - 1) last[1] = number; else found.push([number, number]); }
  return found.map(([first, last]) => first === last ? first : `${first}–${last}`).join(", ");
}

VIEWS.kernel = (planName, symbol) => {
  const plan = R.plans.find((it) => it.name === planName);
  const idx = plan ? plan.kernels.findIndex((it) => it.symbol === symbol) : -1;
  if (idx < 0) return null;
  if (planNow() !== plan) state.program = Math.max(0, R.programs.findIndex((it) => R.plans[it.plan] === plan));
  if (!stepsNow().some((step) => step.kernel === idx)) {
    const other = R.functions.findIndex((of) => stepsOf(plan, of.name).some((step) => step.kernel === idx));
    if (other >= 0) state.function = other;
  }
  const kernel = plan.kernels[idx], of = functionNow(), legal = legalOf(of), known = proofs(of.name);
  const steps = stepsNow().map((step, number) => [step, number]).filter(([step]) => step.kernel === idx);
  const first = steps[0], nodes = first ? first[0].nodes : [];
  const rules = distinctRules(nodes, known), lines = [...new Set(steps.map(([step]) => R.places[step.place].line).filter(Boolean))];
  return [h("div", { class: "crumbs" }, link("#/kernels", "Kernels"), ` for ${plan.name}`), h("h1", null, kernel.symbol),
    h("p", { class: "lead" }, `${kernel.kind}; a step of ${of.name} runs it ${steps.length === 1 ? "once" : `${steps.length} times`}.`, programNow() ? ` Started with: ${programNow().launches[idx] || "the defaults"}.` : ""),
    h("h2", { id: "ops" }, `The ops that became this kernel`),
    first ? [h("p", { class: "soft" }, "At ", link(to.step(first[1]), `step ${first[1]}`), ", in ", placeLink(first[0].place), steps.length > 1 ? "; the other steps have the same ops over other values." : "."),
      table(nodeColumns, nodes.map((number) => nodeRow(legal.nodes[number], number, legal.name, of)), { id: "kernel-ops" })] : h("p", null, "No step of this function runs it."),
    h("h2", { id: "rules" }, "What rules did to them"),
    rules.length ? [h("p", { class: "soft" }, "Ops that the model has and this kernel has not went here: the left side is what stood there, the right side what stands there now."), rules.map(ruleView)]
      : h("p", { class: "soft" }, "No rule made any of its ops: they are those of the model."),
    h("h2", null, "What it reads, and who made that"), first && argumentTable(first[0], first[1], plan),
    h("h2", null, "As the plan has it"), h("pre", { tabindex: 0 }, kernel.text),
    lines.length > 0 && [h("h2", null, "Lines of the spec"), lines.map(specLine)],
    h("h2", null, "Steps that run it"), stepTable(steps, plan),
    h("h2", { id: "code" }, "Code, side by side"), codeView(nodes.length ? R.programs.flatMap((_, program) => kernelsFor(nodes[0], program)) : [[state.program, idx]])];
};

/** Each rule that was applied in the proofs of these values, once. */
function distinctRules(nodes, known) {
  const seen = new Map();
  // The values in a kernel, and the constants that were made for them.
  const legal = legalOf(functionNow()).nodes;
  const all = new Set(nodes.flatMap((number) => legal[number] ? [number, ...legal[number][OPERANDS].filter((operand) => R.ops[legal[operand][OP]].constant)] : []));
  for (const number of all)
    if (known.has(number)) for (const step of known.get(number).value.steps) seen.set(`${step.rule} ${step.before.replace(/%\d+/g, "%")}`, step);
  return [...seen.values()];
}
/** The kernels that compute a value: [program, kernel]. */
function kernelsFor(number, program) {
  const plan = R.plans[R.programs[program].plan], step = stepsByValue(plan, functionNow().name).get(number);
  return step === undefined ? [] : [[program, stepsOf(plan, functionNow().name)[step].kernel]];
}

function argumentTable(step, number, plan) {
  const kernel = plan.kernels[step.kernel], of = plan.functions.find((it) => it.name === functionNow().name);
  const writer = (buffer, before) => { for (let at = before - 1; at >= 0; at--) if (of.steps[at].args.some(([kind, idx], param) => kind === "b" && idx === buffer && plan.kernels[of.steps[at].kernel].writes.includes(param))) return at; return null; };
  return table([["parameter"], ["what it is"], ["elements"], ["written by"]], step.args.map(([kind, idx], param) => {
    const writes = kernel.writes.includes(param), constant = plan.constants[idx], buffer = of.buffers[idx];
    if (kind === "c") return [code(kernel.params[param]), ["constant ", code(constant.name)], `${constant.dtype} ${constant.rows} × ${constant.cols}`, "the compile"];
    const from = writer(idx, number);
    return [code(kernel.params[param]), [writes ? "→ " : "", code(buffer.name)], `${buffer.dtype} ${buffer.rows} × ${buffer.cols}`, writes ? "this step" : from === null ? "the caller" : [link(to.step(from), `step ${from}`), " ", code(plan.kernels[of.steps[from].kernel].symbol)]];
  }));
}

VIEWS.steps = () => {
  const plan = planNow(), of = functionNow();
  if (!plan) return [h("h1", null, "Steps"), h("p", null, "There is no plan.")];
  return [h("h1", null, `Steps of ${of.name}`), h("p", { class: "lead" }, "Kernel runs in the order in which they run. Each sees what the ones before it wrote."), stepTable(stepsNow().map((step, number) => [step, number]), plan)];
};

VIEWS.step = (name, text) => {
  const number = Number(text), plan = planNow(), of = functionNow(), step = stepsNow()[number], legal = legalOf(of);
  if (!step || of.name !== name) return null;
  const line = R.places[step.place].line, last = stepsNow().length - 1;
  return [h("div", { class: "crumbs" }, link("#/steps", `Steps of ${of.name}`), number > 0 && [" · ", link(to.step(number - 1), "← before")], number < last && [" · ", link(to.step(number + 1), "next →")]),
    h("h1", null, `Step ${number}`), h("p", { class: "lead" }, "Runs ", link(to.kernel(step.kernel, plan), code(plan.kernels[step.kernel].symbol)), " in ", placeLink(step.place), "."),
    h("h2", null, "The line of the spec that made it"), line && h("p", null, lineLink(line), R.written ? ` of ${R.written}` : " of the resolved spec"), specLine(line),
    h("h2", null, "What it computes"), table(nodeColumns, step.nodes.map((node) => nodeRow(legal.nodes[node], node, legal.name, of))),
    h("h2", null, "What it reads and writes"), argumentTable(step, number, plan),
    h("h2", null, "Code, side by side"), codeView(step.nodes.length ? R.programs.flatMap((_, program) => kernelsFor(step.nodes[0], program)) : [[state.program, step.kernel]])];
};

VIEWS.value = (name, phaseName, text) => {
  const of = functionNow(), phase = of.phases.find((it) => it.name === phaseName), number = Number(text), node = phase && phase.nodes[number];
  if (!node || of.name !== name) return null;
  const legal = legalOf(of), inLegal = legal.nodes.findIndex((it) => it[IDENTITY] === node[IDENTITY]);
  const line = R.places[node[PLACE]].line, proof = inLegal >= 0 && proofs(of.name).get(inLegal), about = R.ops[node[OP]];
  const users = phase.nodes.map((it, at) => [it, at]).filter(([it]) => it[OPERANDS].includes(number));
  const steps = R.programs.map((program, idx) => [program, idx, inLegal < 0 ? undefined : stepsByValue(R.plans[program.plan], of.name).get(inLegal)]).filter(([, , step]) => step !== undefined);
  return [h("div", { class: "crumbs" }, link(to.phase(phase.name), `${of.name} after ${phase.name}`), " · ", placeLink(node[PLACE])),
    h("h1", null, `%${number} `, node[OP]), h("p", null, h("span", { class: "mono" }, nodeText(node, number, phase.name, of)), " ", typeChip(node[TYPE])), h("p", { class: "soft" }, withCode(about.doc)),
    h("h2", null, "1. The line of the spec"), line && h("p", null, lineLink(line)), specLine(line),
    h("h2", null, "2. In every phase"), h("p", { class: "soft" }, "All ops of the same place. ◀ is this value: what computes the same from the same leaves."), phasesOf(of, node),
    h("h2", { id: "rules" }, "3. The rules that made it"), proof ? [h("p", { class: "soft" }, proof.value.equals ? ["It stands for ", code(proof.value.equals), " of the graph that the rules saw. Numbers are those of that graph."] : "It is part of a larger form."), proof.value.steps.map(ruleView), h("pre", null, proof.value.values.join("\n"))] : h("p", { class: "soft" }, "No rule: the model has it as it is."),
    h("h2", null, "4. Kernels and steps"), steps.length ? table([["target"], ["step"], ["kernel"]], steps.map(([program, , step]) => { const plan = R.plans[program.plan], kernel = stepsOf(plan, of.name)[step].kernel; return [program.target, link(to.step(step), `step ${step}`), link(to.kernel(kernel, plan), code(plan.kernels[kernel].symbol))]; }))
      : h("p", { class: "soft" }, about.constant ? "It is known when the model is compiled, and a constant of the kernels that read it." : "No step: it is given by the caller, or gone in a later phase."),
    h("h2", null, "Who uses it"), users.length ? table(nodeColumns, users.map(([it, at]) => nodeRow(it, at, phase.name, of))) : h("p", { class: "soft" }, "Nothing but the result of the function."),
    steps.length > 0 && [h("h2", null, "5. Code, side by side"), codeView(steps.flatMap(([, program]) => kernelsFor(inLegal, program)))]];
};
function phasesOf(of, node) {
  // Phases that left the place as it was stand in one card.
  const cards = [];
  for (const phase of of.phases) {
    const nodes = phase.nodes.map((it, at) => [it, at]).filter(([it]) => it[PLACE] === node[PLACE] && !R.ops[it[OP]].constant);
    const hit = phase.nodes.findIndex((it) => it[IDENTITY] === node[IDENTITY]);
    if (hit >= 0 && !nodes.some(([, at]) => at === hit)) nodes.unshift([phase.nodes[hit], hit]);
    const key = nodes.map(([it]) => it[IDENTITY]).join(), last = cards[cards.length - 1];
    if (last && last.key === key) last.phases.push(phase); else cards.push({ key, nodes, phases: [phase] });
  }
  return h("div", { class: "flow" }, cards.map(({ nodes, phases }) => h("div", { class: "card" }, h("h3", null, phases.map((phase, idx) => [idx ? ", " : "", link(to.phase(phase.name, of), phase.name)])),
    nodes.length === 0 && h("p", { class: "soft" }, "nothing"),
    nodes.map(([it, at]) => { const same = it[IDENTITY] === node[IDENTITY], phase = phases[0]; return h("div", { class: same ? "mono changed" : "mono" }, `%${at} `, nodeText(it, at, phase.name, of), same ? " ◀" : ""); }))));
}

VIEWS.rewrites = () => [h("h1", null, "Rewrites and proofs"), h("p", { class: "lead" }, "What equality saturation made of each distinct part of the model. Every value has a proof: the rules that lead to it, in order."),
  R.rewrites.filter((of) => of.function === functionNow().name).flatMap((of) => of.regions.map((region) => h("section", null,
    h("h2", null, region.places.map((place) => place.origin || "the graph").join(", ")),
    h("p", null, `${time(region.ns_before)} → ${time(region.ns_after)} predicted (${percent(1 - region.ns_after / Math.max(1, region.ns_before))} less); ${region.is_cheapest ? "nothing that the rules find is cheaper" : "the search was cut short"}; ${region.e_nodes} e-nodes in ${region.rounds} rounds`),
    region.runner_up && h("p", { class: "soft" }, `Another form is cheaper from density ${region.runner_up.break_even_permille / 1000} on.`),
    table([["rule"], ["times", 1]], Object.entries(region.rules).map(([rule, count]) => [code(rule), count])),
    region.values.map((value, at) => { const place = region.places[0], number = place.results[at];
      return h("details", null, h("summary", null, number === null ? "gone since " : link(to.value(number), `%${number}`), " ", code(value.node), value.equals ? [" stands for ", code(value.equals)] : ""), value.steps.map(ruleView), h("pre", null, value.values.join("\n"))); })))),
  !R.rewrites.some((of) => of.function === functionNow().name && of.regions.length) && h("p", null, "No rule made anything.")];

VIEWS.provenance = () => [h("h1", null, "Provenance"), h("p", { class: "lead" }, "What decided the bytes of this model's code."),
  table([["what"], ["value"]], R.provenance.map(([name, value]) => [name, code(value)])),
  h("h2", null, "Options of the compile"), R.options.length ? h("ul", null, R.options.map((option) => h("li", null, code(option)))) : h("p", null, "all defaults"),
  h("h2", null, "Code"), table([["piece"], ["bytes", 1]], R.code.map(({ name, bytes: n }) => [code(name), n])),
  R.inspect && [h("h2", null, "Sections of the artefact"), table([["section"], ["bytes", 1], ["BLAKE3"]], R.inspect.sections.map((section) => [code(section.name), section.length, code(section.blake3.slice(0, 16))]))]];
