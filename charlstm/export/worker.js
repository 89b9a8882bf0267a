// What runs in the worker of this page: it answers messages with what the model, in lstm.js, predicts and writes.

"use strict";

const SLICE = 16; // milliseconds of work before the page's messages are read

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
  predict: ({ prompt, ...settings }) => {
    const state = model.begin();
    const ids = model.encode(prompt);
    for (const id of ids) model.step(state, id);
    const { scores } = logScores(model, state.logits, settings, 0, ids.at(-1));
    const sum = logSum(scores);
    return { probabilities: scores.map((score) => Math.exp(score - sum)) };
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
