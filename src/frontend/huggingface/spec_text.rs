//! A configuration as the text of a spec.

use super::config::{Config, unsupported};
use super::families::{Bias, Experts, Images, MlpBias, Positions, QkNorm, WINDOW, Windows};
use super::methods::{self, Repeats, Routed};
use super::naming::Recursion;
use super::rope::{self, LayerType, Rope};
use super::skip::Skips;
use crate::frontend::language::ast::{Entry, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::Ctx;
use crate::frontend::language::words::Word;
use crate::frontend::rope::print as print_scaling;

/// Sizes that the layers share.
struct Sizes {
    d_model: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    max_positions: usize,
}

/// An activation with a gate, as a spec calls it.
#[derive(Clone, Copy, PartialEq)]
struct Gated(&'static str);

/// An activation without one.
#[derive(Clone, Copy, PartialEq)]
struct Plain(&'static str);

impl Word for Gated {
    const WORDS: &'static [(&'static str, Gated)] = &[
        ("silu", Gated("swiglu")),
        ("swish", Gated("swiglu")),
        ("gelu_pytorch_tanh", Gated("geglu")),
        ("gelu_new", Gated("geglu")),
        ("gelu_fast", Gated("geglu")),
    ];
}

impl Word for Plain {
    const WORDS: &'static [(&'static str, Plain)] = &[
        ("gelu", Plain("gelu_erf")),
        ("gelu_new", Plain("gelu")),
        ("gelu_pytorch_tanh", Plain("gelu")),
        ("gelu_fast", Plain("gelu")),
        ("relu", Plain("relu")),
        ("relu2", Plain("relu2")),
        ("silu", Plain("silu")),
    ];
}

/// The number of layers.
pub(super) fn n_layers(c: &mut Config<'_>) -> Option<usize> {
    c.required(c.family.keys.layers, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS / 2))
}

/// The text of the spec. Nothing if something is wrong, which is reported then.
pub(super) fn write(c: &mut Config<'_>, routed: &Routed) -> Option<String> {
    let sizes = sizes(c)?;
    let ropes = rope::read(c, sizes.max_positions)?;
    let types = layer_types(c, sizes.layers)?;
    let has_windows = types.contains(&LayerType::Sliding);
    let shared = ropes.as_ref().and_then(|[full, sliding]| (full == sliding || !has_windows).then_some(full));
    let model =
        model_table(c, &sizes, ropes.as_ref().map(|ropes| shared.unwrap_or(&ropes[0])), shared.is_some())?;
    let same = attention(c, &sizes)?;
    let ffns = ffns(c, sizes.layers)?;
    let activation = activation(c)?;
    let turns = turns(c, sizes.layers)?;
    let window = window(c)?;
    let layers: Vec<String> = (0..sizes.layers)
        .map(|layer| {
            let mut attention = same.clone();
            if let Some(ropes) = &ropes {
                let rope = &ropes[usize::from(types[layer] == LayerType::Sliding)];
                attention.extend(of_rope(rope, shared.is_none(), turns[layer], sizes.head_dim));
            }
            let window = window.filter(|_| types[layer] == LayerType::Sliding);
            attention.extend(window.map(|window| format!("window = {window}")));
            let layers = [attention, ffns[layer].clone()];
            block((c.family.layout, activation), layers, routed.skips.as_ref(), layer)
        })
        .collect();
    Some(model + &stacks(&layers, routed.repeats.as_ref()))
}

/// Rows of a head in the projections of queries and keys.
pub(super) fn head_dim(c: &mut Config<'_>) -> Option<usize> {
    sizes(c).map(|sizes| sizes.head_dim)
}

fn width(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<usize> {
    ctx.count(entry, 1..=limits::WIDTH)
}

fn sizes(c: &mut Config<'_>) -> Option<Sizes> {
    let family = c.family;
    let d_model = c.required(family.keys.d_model, width);
    let layers = n_layers(c);
    let heads = c.required(family.keys.heads, width);
    let kv_heads = c.nullable(family.keys.kv_heads, family.kv_heads, width);
    let head_dim = c.nullable("head_dim", family.head_dim, width);
    let max_positions = match &family.images {
        // The class token stands in front of the patches.
        Some(images) => n_patches(c, images).map(|n_patches| n_patches + 1),
        None => c.value(family.keys.max_positions, family.max_positions, |ctx, entry| {
            ctx.count(entry, 1..=limits::POSITIONS)
        }),
    };
    let (d_model, heads) = (d_model?, heads?);
    let kv_heads = kv_heads?.unwrap_or(heads);
    let divides = heads.is_multiple_of(kv_heads) && (head_dim?.is_some() || d_model.is_multiple_of(heads));
    if !divides {
        let entry = c.entry(family.keys.heads)?;
        let message =
            format!("{heads} heads do not share out {kv_heads} heads of keys in a width of {d_model}");
        let help = format!(
            "the heads are a multiple of `{}`, and the width is one of theirs unless `head_dim` is given",
            family.keys.kv_heads
        );
        c.ctx.wrong("spec::head_split", message, (&entry.value, "does not come out even"), help);
        return None;
    }
    let head_dim = head_dim?.unwrap_or(d_model / heads);
    Some(Sizes { d_model, layers: layers?, heads, kv_heads, head_dim, max_positions: max_positions? })
}

/// `[model]`. A rotation that all layers share stands here.
fn model_table(c: &mut Config<'_>, sizes: &Sizes, rope: Option<&Rope>, is_shared: bool) -> Option<String> {
    let family = c.family;
    let ends = match &family.images {
        Some(images) => image_ends(c, images)?,
        None => {
            let vocab_size = c.required("vocab_size", width)?;
            let tie = c.flag("tie_word_embeddings", family.tie)?;
            vec![format!("vocab_size = {vocab_size}"), format!("tie_embeddings = {tie}")]
        }
    };
    let eps = c.value(family.keys.eps, family.eps, |ctx, entry| {
        ctx.number(entry, "from 1e-30 to 1.0", |number| (1e-30..=1.0).contains(&number))
    })?;
    let mut lines = vec![
        format!("name = {:?}", family.model_type),
        format!("d_model = {}", sizes.d_model),
        format!("max_positions = {}", sizes.max_positions),
        format!("norm = {:?}", family.norm),
        format!("norm_eps = {eps:?}"),
        format!("positions = {:?}", if rope.is_some() { "rope" } else { "learned" }),
    ];
    lines.extend(rope.map(|rope| format!("rope_theta = {:?}", rope.theta)));
    let scaling = rope.filter(|_| is_shared).and_then(|rope| rope.scaling);
    lines.extend(scaling.map(|scaling| format!("rope_scaling = {}", print_scaling(scaling))));
    lines.extend(ends);
    if family.norms != "pre" {
        lines.push(format!("norms = {:?}", family.norms));
    }
    if family.is_gemma {
        lines.push("norm_offset = 1.0".to_owned());
        lines.push(format!("embed_scale = {:?}", (sizes.d_model as f64).sqrt()));
    }
    if let Some([_, logits]) = family.caps {
        let cap = c.nullable("final_logit_softcapping", logits, positive)?;
        lines.extend(cap.map(|cap| format!("logit_softcap = {cap:?}")));
    }
    if family.head_bias {
        lines.push("head_bias = true".to_owned());
    }
    Some(format!("[model]\n{}\n", lines.join("\n")))
}

/// Channels, rows and columns of a patch.
pub(super) fn patch(c: &mut Config<'_>, images: &Images) -> Option<[usize; 3]> {
    let channels = c.value("num_channels", images.channels, width)?;
    let side = c.value("patch_size", images.patch_size, width)?;
    Some([channels, side, side])
}

/// How many patches an image has; what is left of it is none.
fn n_patches(c: &mut Config<'_>, images: &Images) -> Option<usize> {
    let [_, side, _] = patch(c, images)?;
    let image =
        c.value("image_size", images.image_size, |ctx, entry| ctx.count(entry, side..=limits::WIDTH))?;
    let n_patches = (image / side).pow(2);
    if n_patches < limits::POSITIONS {
        return Some(n_patches);
    }
    let entry = c.entry("image_size")?;
    let message = format!("an image of {n_patches} patches is longer than the limit");
    let help = "use smaller images, or larger patches".to_owned();
    c.ctx.wrong("spec::limit", message, (&entry.value, &format!("at most {}", limits::POSITIONS - 1)), help);
    None
}

/// Patches in, behind a class token that is scored.
fn image_ends(c: &mut Config<'_>, images: &Images) -> Option<Vec<String>> {
    let patch = patch(c, images)?;
    let classes = c.value("id2label", images.classes, |ctx, entry| {
        let labels = ctx.table("id2label", &entry.value, "\"id2label\": { \"0\": \"cat\" }")?;
        Some(labels.entries.len())
    })?;
    Some(vec![
        "input = \"patches\"".to_owned(),
        format!("patch_dim = {}", patch.iter().product::<usize>()),
        "cls_token = true".to_owned(),
        "mask = \"full\"".to_owned(),
        "head = \"pooled\"\npool = \"first\"".to_owned(),
        format!("classes = {classes}"),
    ])
}

fn positive(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "above 0.0", |number| number > 0.0)
}

/// What all attention layers have in common.
fn attention(c: &mut Config<'_>, sizes: &Sizes) -> Option<Vec<String>> {
    let family = c.family;
    let mut settings = vec![
        "kind = \"attention\"".to_owned(),
        format!("heads = {}", sizes.heads),
        format!("kv_heads = {}", sizes.kv_heads),
        format!("head_dim = {}", sizes.head_dim),
    ];
    let bias = match family.bias {
        Bias::None => None,
        Bias::Qkv => Some("qkv"),
        Bias::All => Some("all"),
        Bias::Configured => c.flag("attention_bias", false)?.then_some("all"),
    };
    let qk_norm = match family.qk_norm {
        QkNorm::None => None,
        QkNorm::Head => Some("head"),
        QkNorm::Full => Some("full"),
        QkNorm::Configured => c.flag("qk_layernorm", false)?.then_some("head"),
    };
    settings.extend(bias.map(|word| format!("bias = {word:?}")));
    settings.extend(qk_norm.map(|word| format!("qk_norm = {word:?}")));
    if let Some([scores, _]) = family.caps {
        let scalar = c.value("query_pre_attn_scalar", 256.0, positive)?;
        settings.push(format!("scale = {:?}", scalar.powf(-0.5)));
        let cap = c.nullable("attn_logit_softcapping", scores, positive)?;
        settings.extend(cap.map(|cap| format!("softcap = {cap:?}")));
    }
    Some(settings)
}

fn of_rope(rope: &Rope, is_own: bool, turns: bool, head_dim: usize) -> Vec<String> {
    if !turns {
        return vec!["rotary_dim = 0".to_owned()];
    }
    let mut settings = Vec::new();
    if is_own {
        settings.push(format!("rope_theta = {:?}", rope.theta));
        settings.extend(rope.scaling.map(|scaling| format!("rope_scaling = {}", print_scaling(scaling))));
    }
    let turned = (head_dim as f64 * rope.share).floor() as usize;
    settings.extend((turned != head_dim).then(|| format!("rotary_dim = {turned}")));
    settings
}

/// What stands behind the attention of each layer: an FFN, or experts.
fn ffns(c: &mut Config<'_>, layers: usize) -> Option<Vec<Vec<String>>> {
    let Some(of_family) = &c.family.experts else { return Some(vec![ffn(c)?; layers]) };
    let experts = experts(c, of_family)?;
    if !of_family.some_layers {
        return Some(vec![experts; layers]);
    }
    let step = c.value("decoder_sparse_step", 1, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS))?;
    let plain = c.nullable("mlp_only_layers", None, |ctx, entry| {
        if matches!(&entry.value.kind, ValueKind::List(numbers) if numbers.is_empty()) {
            return Some(Vec::new());
        }
        let numbers = ctx.list(entry, "layers", "[0]")?;
        let of_layer = |value| Entry { value: Clone::clone(value), ..entry.clone() };
        numbers
            .iter()
            .map(|value| ctx.count(&of_layer(value), 0..=layers - 1))
            .collect::<Option<Vec<usize>>>()
    })?;
    let is_plain = |layer: usize| {
        !(layer + 1).is_multiple_of(step) || plain.as_ref().is_some_and(|plain| plain.contains(&layer))
    };
    if !(0..layers).any(is_plain) {
        // No layer has this width.
        c.entry(c.family.keys.d_ff);
        return Some(vec![experts; layers]);
    }
    let ffn = ffn(c)?;
    Some((0..layers).map(|layer| if is_plain(layer) { ffn.clone() } else { experts.clone() }).collect())
}

fn experts(c: &mut Config<'_>, of_family: &Experts) -> Option<Vec<String>> {
    if let Some(entry) = c.entry("clip_qkv")
        && !matches!(entry.value.kind, ValueKind::Null)
    {
        unsupported(&mut c.ctx, entry, "queries, keys and values that are clipped");
    }
    let key = if c.entry("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
    let count = c.value(key, of_family.count, width)?;
    let top_k =
        c.value("num_experts_per_tok", of_family.top_k.min(count), |ctx, entry| ctx.count(entry, 1..=count))?;
    let d_ff = match of_family.d_ff {
        (key, None) => c.required(key, width)?,
        (key, Some(default)) => c.value(key, default, width)?,
    };
    let activation = activation(c)?;
    let normalise = match of_family.normalise {
        Some(normalise) => normalise,
        None => c.flag("norm_topk_prob", false)?,
    };
    let mut settings = vec![
        "kind = \"experts\"".to_owned(),
        format!("experts = {count}"),
        format!("top_k = {top_k}"),
        format!("d_ff = {d_ff}"),
        format!("activation = {activation:?}"),
    ];
    settings.extend(normalise.then(|| "normalise = true".to_owned()));
    if let Some(default) = of_family.shared {
        let shared = c.value("shared_expert_intermediate_size", default, width)?;
        settings.push(format!("shared_d_ff = {shared}"));
        settings.push("shared_gate = true".to_owned());
    }
    Some(settings)
}

fn ffn(c: &mut Config<'_>) -> Option<Vec<String>> {
    let family = c.family;
    let d_ff = match family.keys.d_ff {
        "n_inner" => {
            let d_model = c.required(family.keys.d_model, width)?;
            c.nullable("n_inner", None, width)?.unwrap_or(4 * d_model)
        }
        "multiple_of" => methods::d_ff(c)?,
        key => c.required(key, width)?,
    };
    let activation = activation(c)?;
    let bias = match family.mlp_bias {
        MlpBias::None => false,
        MlpBias::All => true,
        MlpBias::Configured => c.flag("mlp_bias", false)?,
    };
    let mut settings =
        vec!["kind = \"ffn\"".to_owned(), format!("d_ff = {d_ff}"), format!("activation = {activation:?}")];
    settings.extend(bias.then(|| "bias = true".to_owned()));
    Some(settings)
}

/// The activation as a spec calls it. Gemmas name it by another key; files of the first one without that key say `gelu` and
/// mean its tanh form.
fn activation(c: &mut Config<'_>) -> Option<&'static str> {
    let is_null = |entry: &&Entry| matches!(entry.value.kind, ValueKind::Null);
    let usual = c.entry(c.family.keys.activation);
    let own = if c.family.is_gemma { c.entry("hidden_activation") } else { None };
    let entry = own.filter(|entry| !is_null(entry)).or(usual.filter(|entry| !is_null(entry)));
    let Some(entry) = entry else {
        let of_family = c.family.activation;
        let known = Gated::WORDS.iter().map(|(word, gated)| (*word, gated.0));
        let known =
            known.filter(|_| c.family.gated).chain(Plain::WORDS.iter().map(|(word, plain)| (*word, plain.0)));
        return known.into_iter().find(|(word, _)| *word == of_family).map(|(_, ours)| ours);
    };
    let is_gelu = matches!(&entry.value.kind, ValueKind::Text(word) if word == "gelu");
    if is_gelu && c.family.model_type == "gemma" && entry.key == c.family.keys.activation {
        c.note(
            entry,
            "`gelu` is read as `gelu_pytorch_tanh`, which files of this family mean by it".to_owned(),
        );
        return Some("geglu");
    }
    match c.family.gated {
        true => c.ctx.word::<Gated>(entry).map(|word| word.0),
        false => c.ctx.word::<Plain>(entry).map(|word| word.0),
    }
}

/// Which layers see a window.
fn layer_types(c: &mut Config<'_>, layers: usize) -> Option<Vec<LayerType>> {
    let count = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 0..=limits::LAYERS);
    let is_sliding: Box<dyn Fn(usize) -> bool> = match c.family.windows {
        Windows::None => return Some(vec![LayerType::Full; layers]),
        Windows::Refused => {
            if let Some(entry) = c.entry("use_sliding_window")
                && matches!(entry.value.kind, ValueKind::Bool(true))
            {
                unsupported(&mut c.ctx, entry, "windows, which this family is not read with");
            }
            for key in ["sliding_window", "max_window_layers", "layer_types"] {
                // Without a window they say nothing.
                c.entry(key);
            }
            return Some(vec![LayerType::Full; layers]);
        }
        Windows::All(_) => return Some(vec![LayerType::Sliding; layers]),
        Windows::Switched => {
            let from = c.value("max_window_layers", 28, count)?;
            if !c.flag("use_sliding_window", false)? {
                c.entry("layer_types");
                return Some(vec![LayerType::Full; layers]);
            }
            Box::new(move |layer| layer >= from)
        }
        Windows::Alternating => Box::new(|layer| layer % 2 == 0),
        Windows::Pattern => {
            let key = match c.entry("_sliding_window_pattern") {
                Some(_) => "_sliding_window_pattern",
                None => "sliding_window_pattern",
            };
            let period = c.value(key, 6, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS))?;
            Box::new(move |layer| !(layer + 1).is_multiple_of(period))
        }
    };
    let listed = c.nullable("layer_types", None, |ctx, entry| {
        list_of(ctx, entry, layers, |ctx, entry| ctx.word(entry))
    })?;
    let by_rule = |layer| if is_sliding(layer) { LayerType::Sliding } else { LayerType::Full };
    Some(listed.unwrap_or_else(|| (0..layers).map(by_rule).collect()))
}

/// A list with an element for each layer.
fn list_of<T>(
    ctx: &mut Ctx<'_>,
    entry: &Entry,
    layers: usize,
    read: impl Fn(&mut Ctx<'_>, &Entry) -> Option<T>,
) -> Option<Vec<T>> {
    let values = ctx.list(entry, "elements", "[…]")?;
    if values.len() != layers {
        let message = format!("`{}` has {} elements for {layers} layers", entry.key, values.len());
        let help = "write an element for each layer".to_owned();
        ctx.wrong("spec::out_of_range", message, (&entry.value, "of another length"), help);
        return None;
    }
    let element = |value| Entry { value: Clone::clone(value), ..entry.clone() };
    values.iter().map(|value| read(ctx, &element(value))).collect()
}

/// Which layers have a rotation.
fn turns(c: &mut Config<'_>, layers: usize) -> Option<Vec<bool>> {
    let Positions::Rope { switched: true, .. } = c.family.positions else { return Some(vec![true; layers]) };
    if let Some(entry) = c.entry("use_sliding_window")
        && matches!(entry.value.kind, ValueKind::Bool(true))
    {
        unsupported(&mut c.ctx, entry, "windows, which smollm3 is not read with");
    }
    let interval = c.value("no_rope_layer_interval", 4, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS))?;
    let flag = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 0..=1).map(|flag| flag == 1);
    let listed = c.nullable("no_rope_layers", None, |ctx, entry| list_of(ctx, entry, layers, flag))?;
    Some(listed.unwrap_or_else(|| (0..layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect()))
}

/// The window of layers that have one.
fn window(c: &mut Config<'_>) -> Option<Option<usize>> {
    let default = match c.family.windows {
        Windows::None | Windows::Refused => return Some(None),
        Windows::All(default) => default,
        Windows::Switched | Windows::Alternating | Windows::Pattern => Some(WINDOW),
    };
    c.nullable("sliding_window", default, |ctx, entry| ctx.count(entry, 1..=limits::POSITIONS))
}

fn block(
    (layout, activation): (&str, &str),
    layers: [Vec<String>; 2],
    skips: Option<&Skips>,
    layer: usize,
) -> String {
    let mut text = String::new();
    if layout != "sequence" {
        text.push_str(&format!("layout = {layout:?}\n"));
    }
    let skip = skips.and_then(|skips| skips.of_block(layer, activation));
    text.extend(skip.map(|skip| format!("skip = {skip}\n")));
    text.push_str("layers = [\n");
    for (idx, mut settings) in layers.into_iter().enumerate() {
        let skip = skips.and_then(|skips| skips.of_layer(layer, idx));
        settings.extend(skip.map(|skip| format!("skip = {skip}")));
        text.push_str(&format!("  {{ {} }},\n", settings.join(", ")));
    }
    text + "]\n"
}

/// Blocks, each once and named by the first layer that it is, and the stacks of them: one, or around blocks that run several
/// times.
fn stacks(layers: &[String], repeats: Option<&Repeats>) -> String {
    let last = layers.len() - 1;
    let (run, parts) = match repeats {
        None => ((0..=last).collect(), vec![(0..layers.len(), String::new())]),
        Some(Repeats { recursion: Recursion { outer, blocks, repeat }, skip }) => {
            let (first, behind) = (0..*outer, outer + blocks..2 * outer + blocks);
            let run: Vec<usize> = (0..outer + blocks).chain(last + 1 - outer..=last).collect();
            let decided = format!("repeat = {repeat}\nshare = true\nskip = {skip}\n");
            (run, vec![(first, String::new()), (*outer..outer + blocks, decided), (behind, String::new())])
        }
    };
    let first = |layer: usize| run.iter().copied().find(|other| layers[*other] == layers[layer]);
    let is_uniform = run.iter().all(|layer| first(*layer) == first(run[0]));
    let name = |layer: usize| match is_uniform {
        true => "layer".to_owned(),
        false => format!("layer{}", first(layer).unwrap_or_default()),
    };
    let mut text = String::new();
    for layer in run.iter().filter(|layer| first(**layer) == Some(**layer)) {
        text.push_str(&format!("\n[block.{}]\n{}", name(*layer), layers[*layer]));
    }
    for (part, settings) in parts.into_iter().filter(|(part, _)| !part.is_empty()) {
        let names: Vec<String> = run[part].iter().map(|layer| format!("{:?}", name(*layer))).collect();
        let same = is_uniform && settings.is_empty() && names.len() > 1;
        let blocks = if same { names[0].clone() } else { names.join(", ") };
        let repeat = if same { format!("repeat = {}\n", names.len()) } else { String::new() };
        text.push_str(&format!("\n[[stack]]\nblocks = [{blocks}]\n{repeat}{settings}"));
    }
    text
}
