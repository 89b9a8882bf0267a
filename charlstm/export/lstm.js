// The model of this page, run in a worker: an LSTM that predicts the next character, and the choice of one.
//
// For t = 1, 2, …, with x the character that was read last (one-hot, or embedded) or the output of the layer below:
//
//     z = W x + U h + b                  the four gates' pre-activations
//     i, f, o = σ(z_i), σ(z_f), σ(z_o)   input, forget and output gate
//     g = tanh(z_g)                      candidate
//     c = f c + i g                      cell state
//     h = o tanh(c)                      output
//
// The logits are W h + b of the output layer, or E (P h) + b with an embedding E, which is used twice.

"use strict";

const GATES = 4; // in the file's order: i, f, o, g
const SLICE = 16; // milliseconds of work before the page's messages are read
const COLDEST = 1e-30; // lower temperatures are raised to this one, which leaves nothing to chance either

// -- weights --------------------------------------------------------------------------------------------------------

/** The bytes of a base64 text. */
function bytesOf(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = binary.charCodeAt(k);
  return bytes;
}

/** The value of every 16-bit floating-point number, by its bits. */
function halfFloats() {
  const values = new Float64Array(1 << 16);
  for (let bits = 0; bits < 1 << 15; bits++) {
    const exponent = bits >> 10;
    const fraction = (bits & 1023) / 1024;
    const value = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    values[bits] = value;
    values[bits | (1 << 15)] = -value;
  }
  return values;
}

/** All arrays of the file by name: { rows, columns, values }, a vector being a matrix of one row. */
function readArrays(entries, base64) {
  const buffer = bytesOf(base64).buffer;
  const half = halfFloats();
  const arrays = {};
  for (const { name, rows, columns, offset, bits } of entries) {
    const size = rows * columns;
    const values = new Float64Array(size);
    if (bits === 16) {
      const stored = new Uint16Array(buffer, offset, size);
      for (let k = 0; k < size; k++) values[k] = half[stored[k]];
    } else {
      const scales = new Float32Array(buffer, offset, rows); // then the rows, as integers from -127 to 127
      const stored = new Int8Array(buffer, offset + 4 * rows, size);
      for (let k = 0, row = 0; row < rows; row++) {
        for (let end = k + columns; k < end; k++) values[k] = Math.fround(scales[row] * stored[k]);
      }
    }
    arrays[name] = { rows, columns, values };
  }
  return arrays;
}

/** Matrices of the four gates side by side, as [unit][input][gate]: a unit's gates are then one run of memory. */
function byUnit(matrices, hidden) {
  const inputs = matrices.reduce((sum, matrix) => sum + matrix.columns, 0);
  const result = new Float64Array(hidden * inputs * GATES);
  let first = 0;
  for (const { columns, values } of matrices) {
    for (let gate = 0, from = 0; gate < GATES; gate++) {
      for (let unit = 0; unit < hidden; unit++) {
        let to = (unit * inputs + first) * GATES + gate;
        for (let j = 0; j < columns; j++, to += GATES) result[to] = values[from++];
      }
    }
    first += columns;
  }
  return result;
}

// -- the model ------------------------------------------------------------------------------------------------------

/** y = M x + b, with M (rows × columns) row by row. */
function multiply(matrix, x, bias, y) {
  const { rows, columns, values } = matrix;
  const whole = columns - (columns % 4);
  for (let row = 0, k = 0; row < rows; row++) {
    let p = bias ? bias[row] : 0, q = 0, r = 0, s = 0; // four sums, because an addition waits for the one before
    let j = 0;
    for (; j < whole; j += 4, k += 4) {
      p += values[k] * x[j];
      q += values[k + 1] * x[j + 1];
      r += values[k + 2] * x[j + 2];
      s += values[k + 3] * x[j + 3];
    }
    for (; j < columns; j++, k++) p += values[k] * x[j];
    y[row] = p + q + (r + s);
  }
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** A layer's step: reads `inputs`, and `start`, each unit's four pre-activations without them; changes c and h. */
function stepLayer(weights, inputs, start, from, c, h) {
  const width = inputs.length;
  for (let unit = 0, k = 0, s = from; unit < h.length; unit++, s += GATES) {
    let i = start[s], f = start[s + 1], o = start[s + 2], g = start[s + 3];
    for (let j = 0; j < width; j++, k += GATES) {
      const x = inputs[j];
      i += weights[k] * x;
      f += weights[k + 1] * x;
      o += weights[k + 2] * x;
      g += weights[k + 3] * x;
    }
    c[unit] = sigmoid(f) * c[unit] + sigmoid(i) * Math.tanh(g);
    h[unit] = sigmoid(o) * Math.tanh(c[unit]);
  }
}

class Model {
  constructor({ characters, hidden, layers, embedding, arrays: entries }, base64) {
    const arrays = readArrays(entries, base64);
    this.characters = Array.from(characters); // code points: a character beyond U+FFFF is one
    this.ids = new Map(this.characters.map((character, id) => [character, id]));
    this.hidden = hidden;
    this.embedding = embedding ? arrays["embed.E"] : null;
    this.layers = [];
    for (let k = 1; k <= layers; k++) {
      const [W, U, b] = ["W", "U", "b"].map((part) => arrays[`layer${k}.${part}`]);
      const bias = byUnit([{ columns: 1, values: b.values }], hidden);
      if (k > 1 || embedding) this.layers.push({ weights: byUnit([W, U], hidden), start: bias, inputs: W.columns });
      else this.layers.push({ weights: byUnit([U], hidden), start: this.characterRows(W, bias), inputs: 0 });
    }
    this.projection = embedding ? arrays["out.P"] : null;
    this.top = this.embedding || arrays["out.W"];
    this.topBias = arrays["out.b"].values;
  }

  /** What each one-hot character adds to z, bias included: its column of W, as one row. */
  characterRows(W, bias) {
    const rows = new Float64Array(W.columns * bias.length);
    for (let r = 0, k = 0; r < W.rows; r++) {
      const place = (r % this.hidden) * GATES + Math.floor(r / this.hidden); // rows of W are gate by gate
      for (let id = 0; id < W.columns; id++) rows[id * bias.length + place] = W.values[k++] + bias[place];
    }
    return rows;
  }

  /** The characters' ids; an empty prompt begins a line, as in `charlstm sample`, if the model knows line ends. */
  encode(prompt) {
    const characters = Array.from(prompt || (this.ids.has("\n") ? "\n" : ""));
    const unknown = [...new Set(characters.filter((character) => !this.ids.has(character)))];
    if (unknown.length) throw new RangeError(`the model never saw ${JSON.stringify(unknown.slice(0, 8).join(" "))}`);
    return characters.map((character) => this.ids.get(character));
  }

  /** The state before the first character, with room for what a step computes. */
  begin() {
    const zeros = (n) => new Float64Array(n);
    const layers = this.layers.map(({ inputs }) => ({
      inputs: zeros(inputs + this.hidden), // the layer's input, then its own last output
      c: zeros(this.hidden),
      h: zeros(this.hidden),
    }));
    return { layers, projected: zeros(this.projection ? this.projection.rows : 0), logits: zeros(this.top.rows) };
  }

  /** Read a character; `state.logits` then predict the next one. */
  step(state, id) {
    const width = this.embedding?.columns;
    let below = this.embedding?.values.subarray(id * width, (id + 1) * width);
    for (let k = 0; k < this.layers.length; k++) {
      const { weights, start, inputs } = this.layers[k];
      const layer = state.layers[k];
      if (inputs) layer.inputs.set(below);
      layer.inputs.set(layer.h, inputs);
      stepLayer(weights, layer.inputs, start, inputs ? 0 : id * GATES * this.hidden, layer.c, layer.h);
      below = layer.h;
    }
    if (this.projection) {
      multiply(this.projection, below, null, state.projected);
      below = state.projected;
    }
    multiply(this.top, below, this.topBias, state.logits);
  }
}

// -- the choice of a character --------------------------------------------------------------------------------------

/** Uniform random numbers in [0, 1): "small fast counter" with 32 bits, by Chris Doty-Humphrey. */
function randomNumbers(seed) {
  let a = seed >>> 0, b = Math.floor(seed / 2 ** 32) >>> 0, c = 0, counter = 1;
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let k = 0; k < 15; k++) next(); // until every bit of the seed has reached every bit of the state
  return next;
}

/** exp((logit - largest) / temperature) of every character, and the sum of these weights. */
function softmax(logits, temperature) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const weights = new Float64Array(logits.length);
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += weights[id] = Math.exp((logits[id] - largest) / temperature);
  return { weights, sum };
}

/** Choose among the likeliest characters that together reach the probability topP. */
function choose(logits, temperature, topP, random) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const { weights, sum } = softmax(logits, Math.max(temperature, COLDEST));
  let ids = Array.from(weights.keys());
  let kept = sum;
  if (topP < 1) {
    const least = ((1 - topP) * sum) / ids.length; // all that weigh less make up less than 1 - topP
    ids = ids.filter((id) => weights[id] >= least).sort((a, b) => weights[b] - weights[a]);
    let count = 0;
    for (kept = 0; count < ids.length && kept < topP * sum; count++) kept += weights[ids[count]];
    ids.length = count;
  }
  let rest = random() * kept;
  return ids.find((id) => (rest -= weights[id]) < 0) ?? ids[0];
}

/** Write a text: yields null while the prompt is read, then each new character with its surprise, in nats. */
function* write(model, ids, { temperature, topP, length, seed }) {
  const random = randomNumbers(seed);
  const state = model.begin();
  let id = null;
  for (id of ids) {
    model.step(state, id);
    yield null;
  }
  for (let made = 0; made < length; made++) {
    if (made) model.step(state, id);
    if (id === null) id = Math.floor(random() * model.characters.length); // there is nothing yet to predict from
    else id = choose(state.logits, temperature, topP, random);
    const { weights, sum } = softmax(state.logits, 1);
    yield { character: model.characters[id], surprise: Math.log(sum / weights[id]) };
  }
}

// -- messages -------------------------------------------------------------------------------------------------------

const texts = new Map(); // those being written, by the id of their message
const turn = new MessageChannel(); // a message to oneself lets the page's messages in, and is quicker than a timer
let turning = false;
let model = null;

turn.port1.onmessage = () => {
  for (const [id, characters] of texts) {
    const end = performance.now() + SLICE;
    let text = "";
    const surprises = [];
    let next;
    do {
      next = characters.next();
      text += next.value?.character ?? "";
      if (next.value) surprises.push(next.value.surprise);
    } while (!next.done && performance.now() < end);
    if (next.done) texts.delete(id);
    postMessage({ id, text, surprises, done: next.done });
  }
  turning = texts.size > 0;
  if (turning) turn.port2.postMessage(null);
};

const answers = {
  load: (data) => {
    model = new Model(data.model, data.weights);
  },
  predict: ({ prompt }) => {
    const state = model.begin();
    for (const id of model.encode(prompt)) model.step(state, id);
    const { weights, sum } = softmax(state.logits, 1);
    return { probabilities: weights.map((weight) => weight / sum) };
  },
  write: (data) => {
    texts.set(data.id, write(model, model.encode(data.prompt), data));
    if (!turning) turn.port2.postMessage(null);
    turning = true;
  },
  stop: ({ id }) => ({ done: texts.delete(id) }),
};

/** A message { id, ask, … } is answered by { id, … }; a text by many of them, the last of which is `done`. */
onmessage = ({ data }) => {
  try {
    const answer = answers[data.ask](data);
    if (answer) postMessage({ id: data.id, ...answer });
  } catch (error) {
    postMessage({ id: data.id, error: error.message });
  }
};
