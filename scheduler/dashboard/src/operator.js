// Signing in. The token is kept in this page's memory alone: a reload forgets it, and no other page can use it, for it
// travels in a header that only this script sets.

import { byId, setText } from "./dom.js";
import { ask, emit, operator } from "./state.js";

export const mayChange = () => operator.token !== null;

export function start() {
  byId("sign-in-button").addEventListener("click", () => (mayChange() ? signOut() : open("")));
  byId("sign-in-cancel").addEventListener("click", () => byId("sign-in").close());
  byId("sign-in").addEventListener("close", () => { byId("token").value = ""; });
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(byId("token").value.trim());
  });
  show();
}

function open(problem) {
  setText(byId("sign-in-error"), problem);
  byId("sign-in").showModal();
}

async function signIn(token) {
  const problem = await ask("v1/operator", { authorization: `Bearer ${token}` }).then(
    ({ signed_in: is }) => (is ? null : "The scheduler did not take it."),
    // What cannot be in a header is no token either.
    (error) => (error.status === 401 || error instanceof TypeError ? wrong(error) : `Not signed in: ${error.message}.`),
  );
  if (problem) {
    setText(byId("sign-in-error"), problem);
    byId("token").select();
    return;
  }
  operator.token = token;
  byId("sign-in").close();
  show();
}

const wrong = ({ status }) => (status === 401
  ? "This is not the admin token. It is in admin.token of the scheduler's state directory."
  : "The scheduler does not answer, or this is no token.");

function signOut() {
  operator.token = null;
  show();
}

/** The scheduler refused the token. */
export function signedOut(problem) {
  signOut();
  open(problem);
}

function show() {
  const is = mayChange();
  setText(byId("sign-in-button"), is ? "Sign out" : "Sign in");
  setText(byId("who"), is ? "signed in: changes are possible" : "read only");
  byId("operator").classList.toggle("signed-in", is);
  emit("operator", is);
}
