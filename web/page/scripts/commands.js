/** What can be done with the slide, by name: keys and buttons run commands, parts of the page carry them out. */

const handlers = new Map();
const captors = [];

/** Carry out a command from now on: `handler(large)`. */
export function onCommand(name, handler) {
  if (handlers.has(name)) throw new Error(`Two parts carry out ${name}.`);
  handlers.set(name, handler);
}

/** Be asked first about every command: `captor(name, large)` says whether it was carried out. Ends what it returns. */
export function captureCommands(captor) {
  captors.unshift(captor);
  return () => {
    const index = captors.indexOf(captor);
    if (index >= 0) captors.splice(index, 1);
  };
}

let leaveTool = () => {};

/** Begin to use a tool that takes the pointer; the one before is left, by the function that it gave here. */
export function useTool(leave) {
  leaveTool();
  leaveTool = leave;
}

export function runCommand(name, large = false) {
  if (captors.some((captor) => captor(name, large))) return;
  handlers.get(name)?.(large);
}
