/**
 * A question with its answer: what is known of it, from the moment it is sent.
 *
 * `state` is one of
 *   waiting   sent, nothing came back yet
 *   writing   text arrives
 *   done      complete
 *   stopped   the person stopped it; the server forgot it
 *   broken    the connection or the model failed; `problem` says how, and it can be asked again
 *   refused   the server or this page did not take the question; `problem` says why
 */
export class Answer extends EventTarget {
  constructor(fields) {
    super();
    Object.assign(this, {
      state: "waiting",
      slide: null, // {id, filename}, as it was when this was asked
      model: null, // its id
      question: "",
      text: "",
      scope: null, // of the API; the region's outline is not in it
      notice: null,
      encoderId: null,
      warnings: [],
      requestId: null,
      conversationId: null,
      turn: null, // null when it is not kept
      at: new Date().toISOString(),
      problem: null,
      isRestored: false, // a turn of an earlier visit
      ...fields,
    });
  }

  /** Note something new, and tell whoever shows it. */
  note(fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }

  get isUnderWay() {
    return this.state === "waiting" || this.state === "writing";
  }

  /** A turn of a stored conversation. */
  static ofTurn(turn, { conversationId, slide, model, notice }) {
    return new Answer({
      state: "done",
      slide,
      question: turn.question,
      text: turn.answer,
      model: turn.model ?? model,
      notice,
      scope: turn.scope,
      encoderId: turn.encoder_id,
      requestId: turn.request_id,
      conversationId,
      turn: turn.number,
      at: turn.created_at,
      isRestored: true,
    });
  }
}
