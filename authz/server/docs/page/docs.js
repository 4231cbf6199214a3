// Swagger UI, extended by what each operation requires, example programs, one dialog for tokens, a
// search, and explanations of errors.
"use strict";

(() => {
  const root = document.getElementById("docs");
  const settings = JSON.parse(root.dataset.settings);
  const byID = (id) => document.getElementById(id);
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // ---- Shared state.

  // Credentials by the document's security scheme. Tokens: { kind, value, key, subject, issuer,
  // scopes, expires }; others: { kind, value, user }. One credential can serve several schemes.
  const stored = new Map();
  const answers = new Map(); // values of earlier responses by parameter name, newest first
  const listeners = new Set();
  const changed = () => listeners.forEach((listen) => listen());
  let language = "curl"; // the last choice
  let executing = null; // security of the operation that is being executed

  const kindOf = (name) => settings.credentials[name]?.kind;
  const expired = ({ expires }) => expires && expires <= new Date();

  // alternativesOf returns the document's alternatives of an operation. The served copy adds those
  // of the issuers, for other tools.
  const alternativesOf = (security) => (security ?? []).filter((alternative) => !Object.keys(alternative).some((name) => name in settings.schemes));
  const has = (name) => stored.has(name) || kindOf(name) === "certificate";
  const satisfied = (alternative) => Object.entries(alternative).every(([name, scopes]) =>
    has(name) && (kindOf(name) !== "token" || scopes.every((scope) =>
      [scope, ...settings.grantedBy[scope] ?? []].some((one) => stored.get(name).scopes.includes(one)))));

  // allows reports whether the stored credentials satisfy one alternative of an operation's
  // security.
  const allows = (security) => !security?.length || alternativesOf(security).some(satisfied);

  // choose returns the alternative for a request: one that is satisfied, or else the nearest, so
  // that the response says what is missing.
  const choose = (security) => {
    const alternatives = alternativesOf(security).filter((alternative) => Object.keys(alternative).length);
    return alternatives.find(satisfied) ?? alternatives.find((alternative) => Object.keys(alternative).every(has)) ??
      alternatives.find((alternative) => Object.keys(alternative).some(has)) ?? {};
  };

  const base64url = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  const utf8 = (text) => new TextEncoder().encode(text);
  const sha256 = async (text) => base64url(await crypto.subtle.digest("SHA-256", utf8(text)));
  const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

  const claimsOf = (token) => {
    try {
      const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
      return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
    } catch {
      return {}; // an opaque token
    }
  };

  const store = (names, credential) => {
    for (const name of names) stored.set(name, credential);
    changed();
  };

  // documented converts an issuer's scopes to the document's names. called has the issuer's names,
  // where they differ.
  const documented = (scopes, called) => [
    ...scopes.filter((scope) => !(scope in called) && !Object.values(called).includes(scope)),
    ...Object.keys(called).filter((scope) => called[scope] && called[scope].split(" ").every((one) => scopes.includes(one))),
  ];

  const storeToken = (names, value, { scheme, key, answer = {} } = {}) => {
    const claims = claimsOf(value);
    const listed = answer.scope ?? claims.scope ?? claims.scp ?? [];
    const issuer = settings.schemes[scheme] ?? Object.values(settings.schemes).find(({ issuer }) => issuer === claims.iss);
    const seconds = claims.exp ?? (answer.expires_in && Date.now() / 1000 + Number(answer.expires_in));
    store(names, {
      kind: "token", value, key, subject: claims.sub ?? claims.client_id, issuer: claims.iss ?? issuer?.issuer,
      scopes: documented(Array.isArray(listed) ? listed : listed.split(" ").filter(Boolean), issuer?.names ?? {}), expires: seconds ? new Date(seconds * 1000) : null,
    });
  };

  // apply adds the credentials of an alternative to a request.
  const apply = (request, alternative) => {
    for (const name of Object.keys(alternative)) {
      const credential = stored.get(name);
      const scheme = settings.credentials[name];
      if (scheme?.kind === "certificate") request.credentials = "include"; // required for the browser to present one
      if (!credential) continue;
      if (credential.kind === "token") {
        request.headers.Authorization = `${credential.key ? "DPoP" : "Bearer"} ${credential.value}`;
        if (credential.key) request.userFetch = (url, options) => credential.key.fetch(url, options, credential.value);
      } else if (credential.kind === "basic") {
        request.headers.Authorization = `Basic ${btoa(String.fromCharCode(...utf8(`${credential.user}:${credential.value}`)))}`;
      } else if (scheme.in === "query") {
        const url = new URL(request.url, location.href);
        url.searchParams.set(scheme.parameter, credential.value);
        request.url = url.href;
      } else {
        request.headers[scheme.parameter] = credential.value;
      }
    }
  };

  // makeKey generates a key for tokens that are bound to one (RFC 9449). Scripts cannot read it,
  // and it is lost when the page closes.
  const makeKey = async () => {
    needsCryptography();
    const { privateKey, publicKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
    const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", publicKey);
    const nonces = new Map(); // by origin (RFC 9449 §8, §9)
    const encode = (value) => base64url(utf8(JSON.stringify(value)));
    const proof = async (method, url, token) => {
      const { origin, pathname } = new URL(url, location.href);
      const claims = { jti: random(), htm: method.toUpperCase(), htu: origin + pathname, iat: Math.floor(Date.now() / 1000), nonce: nonces.get(origin) };
      if (token) claims.ath = await sha256(token);
      const signed = `${encode({ typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } })}.${encode(claims)}`;
      return `${signed}.${base64url(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, privateKey, utf8(signed)))}`;
    };
    const send = async (url, options, token) => {
      const response = await fetch(url, { ...options, headers: { ...options.headers, DPoP: await proof(options.method ?? "GET", url, token) } });
      const nonce = response.headers.get("DPoP-Nonce");
      const renewed = nonce && nonce !== nonces.get(new URL(url, location.href).origin);
      if (nonce) nonces.set(new URL(url, location.href).origin, nonce);
      return { response, again: renewed && (response.status === 400 || response.status === 401) };
    };
    return {
      // fetch sends a request with a proof, and retries once if the server requires a nonce.
      async fetch(url, options, token) {
        const { response, again } = await send(url, options, token);
        return again ? (await send(url, options, token)).response : response;
      },
    };
  };

  const needsCryptography = () => {
    if (!crypto.subtle) throw new Error("This needs https, or this machine’s own localhost: the browser offers no cryptography here.");
  };

  // ---- Explanations of errors.

  // unreachable explains why a request failed: an opaque request distinguishes CORS from an outage.
  const unreachable = async (url, who) => {
    const target = new URL(url, location.href);
    const reached = await fetch(target, { mode: "no-cors", credentials: "omit", redirect: "follow" }).then(() => true, () => false);
    if (reached && target.origin !== location.origin) {
      return `${who} at ${target.origin} answers, but does not let pages of ${location.origin} read the answer (CORS). Its operator has to allow this origin.`;
    }
    return `${who} at ${target.origin} does not answer. It may be stopped, or the network may be down. Try again when it runs.`;
  };

  const requestToken = async (names, scheme, form) => {
    const { token, audience, dpop } = settings.schemes[scheme];
    if (audience) form.set("audience", audience);
    const key = dpop ? await makeKey() : undefined;
    let answer;
    try {
      // With credentials, browsers show their own password dialog for a 401.
      const request = { method: "POST", body: form, credentials: "omit", redirect: "error" };
      answer = await (key ? key.fetch(token, request) : fetch(token, request));
    } catch {
      throw new Error(await unreachable(token, "The issuer"));
    }
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok || !said.access_token) {
      throw new Error(["The issuer refuses", said.error ?? `status ${answer.status}`, said.error_description].filter(Boolean).join(": "));
    }
    storeToken(names, said.access_token, { scheme, key, answer: said });
  };

  // ---- Authorize.

  const dialog = byID("docs-authorize-dialog");
  const form = byID("docs-authorize-form");
  const fail = (message) => { byID("docs-authorize-error").textContent = message; };
  const credentials = Object.entries(settings.credentials).map(([name, scheme]) => ({ name, ...scheme }));
  const chosen = () => { // the selected schemes
    const name = form.elements.for.value;
    return name ? [name] : credentials.filter(({ kind }) => kind === "token").map(({ name }) => name);
  };
  const kind = () => kindOf(chosen()[0]);
  const way = () => (kind() === "token" ? form.elements.way.value : kind());
  const client = () => settings.schemes[form.elements.scheme.value]?.clients?.[way() === "person" ? "authorizationCode" : "clientCredentials"];

  const submits = { application: "Get a token", person: "Sign in", paste: "Use this token", key: "Use this key", basic: "Use this password" };
  const showWay = () => {
    const current = settings.schemes[form.elements.scheme.value];
    form.querySelectorAll("[data-ways]").forEach((part) => { part.hidden = !part.dataset.ways.split(" ").includes(way()); });
    byID("docs-ways").hidden = kind() !== "token" || !current;
    byID("docs-scheme-field").hidden ||= Object.keys(settings.schemes).length < 2;
    form.elements.way[1].disabled = !current?.authorize;
    form.elements.client.value = client()?.id ?? "";
    form.elements.secret.value = client()?.secret ?? "";
    const button = form.querySelector("[type=submit]");
    button.textContent = submits[way()] ?? "";
    button.hidden = !submits[way()];
    fail("");
  };

  const scopeGroups = () => Map.groupBy(Object.keys(settings.scopes).sort(), (scope) => scope.split(/[:./]/)[0]);

  const buildForm = () => {
    const words = { token: "access token", key: "API key", basic: "user and password", certificate: "client certificate", cookie: "API key in a cookie", other: "another credential" };
    const tokens = credentials.filter(({ kind }) => kind === "token");
    if (tokens.length > 1) form.elements.for.append(element("option", { value: "", textContent: "all schemes that take an access token" }));
    form.elements.for.append(...credentials.map(({ name, kind }) => element("option", { value: name, textContent: `${name} (${words[kind]})` })));
    byID("docs-for-field").hidden = credentials.length < 2;
    byID("docs-authorize").hidden = byID("docs-mine").hidden = !credentials.length;
    form.elements.scheme.append(...Object.entries(settings.schemes).map(([name, { issuer }]) => element("option", { value: name, textContent: issuer })));
    byID("docs-scopes-field").dataset.ways = Object.keys(settings.scopes).length ? "application person" : "";
    form.elements.way.value = Object.keys(settings.schemes).length ? "application" : "paste";
    if (credentials.length) showWay();
  };

  // openDialog adds the scopes on first use: there may be hundreds.
  const openDialog = () => {
    fail("");
    if (!byID("docs-scopes").firstChild) {
      const filled = Object.values(settings.schemes).some(({ clients }) => clients);
      byID("docs-scopes").append(...[...scopeGroups()].map(([group, scopes]) => element("fieldset", {}, element("legend", { textContent: group }),
        ...scopes.map((scope) => element("label", { title: settings.scopes[scope] },
          element("input", { type: "checkbox", name: "scope", value: scope, checked: filled }), " " + scope,
          element("small", { textContent: " " + settings.scopes[scope] }))))));
    }
    showStored();
    dialog.showModal();
  };

  const filterScopes = () => {
    const wanted = form.elements.find.value.toLowerCase();
    byID("docs-scopes").querySelectorAll("fieldset").forEach((group) => {
      const labels = [...group.querySelectorAll("label")];
      labels.forEach((label) => { label.hidden = !label.textContent.toLowerCase().includes(wanted); });
      group.hidden = labels.every((label) => label.hidden);
    });
  };

  // signIn opens the issuer's page (RFC 6749 §4.1) with PKCE (RFC 7636) and a random state. The
  // window must be opened during the click event, or the browser blocks it.
  const signIn = async (names, scheme, clientID, scope) => {
    needsCryptography();
    const { authorize, audience, issuer } = settings.schemes[scheme];
    const redirect = new URL("oauth2-redirect.html", location.href).href;
    const opened = window.open("", "_blank");
    if (!opened) throw new Error("The browser blocked the sign-in window. Allow pop-ups for this page.");
    const verifier = random(), state = random();
    const url = new URL(authorize);
    for (const [name, value] of Object.entries({
      response_type: "code", client_id: clientID, redirect_uri: redirect, scope, state, audience, code_challenge_method: "S256",
      code_challenge: await sha256(verifier),
    })) if (value) url.searchParams.set(name, value);
    window.docsSignIn = {
      state, issuer, fail,
      redeem: (code) => requestToken(names, scheme, new URLSearchParams({
        grant_type: "authorization_code", client_id: clientID, code, redirect_uri: redirect, code_verifier: verifier,
      })).catch(({ message }) => fail(message)),
    };
    opened.location = url.href;
  };

  const submit = async (event) => {
    event.preventDefault();
    fail("");
    const names = chosen();
    const scheme = form.elements.scheme.value;
    const clientID = form.elements.client.value.trim();
    const called = settings.schemes[scheme]?.names ?? {}; // the issuer's names of scopes
    const scope = [...form.querySelectorAll("[name=scope]:checked")].map(({ value }) => called[value] ?? value).filter(Boolean).join(" ");
    try {
      if (way() === "key" || way() === "basic") {
        const field = form.elements[way() === "key" ? "key" : "password"];
        if (!field.value) throw new Error(`Enter the ${way() === "key" ? "key" : "password"}.`);
        store(names, { kind: way(), value: field.value, user: form.elements.user.value });
        field.value = "";
      } else if (way() === "paste") {
        const value = form.elements.token.value.trim().replace(/^(authorization:\s*)?(bearer|dpop)\s+/i, "");
        if (!value || /\s/.test(value)) throw new Error("Paste one access token; “Bearer” in front of it does not matter.");
        if (claimsOf(value).cnf) throw new Error("This token is bound to a key or a certificate that this page does not have. Get one here, or use a program.");
        storeToken(names, value);
        form.elements.token.value = "";
      } else if (!clientID) {
        throw new Error("Enter the client ID that the issuer knows you by.");
      } else if (way() === "person") {
        await signIn(names, scheme, clientID, scope);
      } else {
        const body = new URLSearchParams({ grant_type: "client_credentials", client_id: clientID, client_secret: form.elements.secret.value });
        if (scope) body.set("scope", scope);
        await requestToken(names, scheme, body);
      }
    } catch ({ message }) {
      fail(message);
    }
  };

  const until = (date) => date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

  const ends = (credential) => (credential.expires ? until(credential.expires) : "its issuer revokes it");
  const labels = {
    token: (credential) => (expired(credential) ? "Token expired" : credential.subject ?? "Token"), key: () => "API key", basic: ({ user }) => user || "Password",
  };
  const details = {
    token: (credential) => [
      ["You are", credential.subject ?? "not named by the token"], ["Issuer", credential.issuer ?? "not named by the token"],
      ["Scopes", credential.scopes.join(" ") || "none"],
      [expired(credential) ? "Expired" : "Until", credential.expires ? until(credential.expires) : "not named by the token"],
      ...(credential.key ? [["Bound to", "a key of this page (DPoP)"]] : []),
    ],
    key: () => [["API key", "set"]],
    basic: ({ user }) => [["User", user || "without a name"], ["Password", "set"]],
  };

  // showStored shows each credential and its schemes.
  const showStored = () => {
    const groups = [...Map.groupBy(stored.keys(), (name) => stored.get(name))];
    byID("docs-held").hidden = !groups.length;
    const [only] = groups.length === 1 ? groups[0] : [];
    byID("docs-identity").textContent = groups.map(([credential]) => labels[credential.kind](credential)).join(", ") +
      (only?.kind === "token" && !expired(only) ? `, until ${ends(only)}` : "");
    byID("docs-held").replaceChildren(...groups.map(([credential, names]) => element("section", {},
      element("dl", {}, ...[...(credentials.length > 1 ? [["For", names.join(", ")]] : []), ...details[credential.kind](credential)]
        .flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })])),
      element("button", {
        type: "button", textContent: credential.kind === "token" ? "Forget the token" : "Forget it",
        onclick: () => { names.forEach((name) => stored.delete(name)); changed(); form.querySelector("[name=way], [name=for]").focus(); },
      }))));
  };

  // ---- Search.

  const query = byID("docs-query");
  let operations = []; // { method, path, id, tag, text }

  const go = ({ tag, id }) => {
    byID("docs-search-dialog").close();
    const hash = `#/${encodeURIComponent(tag)}/${encodeURIComponent(id)}`;
    history.replaceState(null, "", hash);
    ui.getSystem().layoutActions.parseDeepLinkHash(hash); // works for operations that are not rendered yet
    // Swagger UI renders operations as they scroll into view: start at the tag and retry.
    const arrive = (tries) => {
      const there = byID(`operations-${tag}-${id}`.trim().replace(/\s/g, "%20"));
      if (!there && tries) {
        if (tries < 80) scrollBy(0, innerHeight / 2);
        setTimeout(arrive, 50, tries - 1);
        return;
      }
      there?.scrollIntoView();
      there?.querySelector("button")?.focus();
    };
    arrive(100);
  };

  const search = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = operations.filter(({ text }) => words.every((word) => text.includes(word))).slice(0, 50);
    byID("docs-found").replaceChildren(...found.map((operation) => element("li", {}, element("button", { type: "button", onclick: () => go(operation) },
      element("b", { textContent: operation.method.toUpperCase() }), ` ${operation.path} `, element("small", { textContent: `${operation.summary} ${operation.access}` })))));
    if (!found.length) byID("docs-found").append(element("li", { textContent: "Nothing has all of these words." }));
  };

  const openSearch = () => {
    operations = Object.entries(ui.getSystem().specSelectors.specJson().get("paths")?.toJS() ?? {}).flatMap(([path, item]) =>
      Object.entries(item).filter(([, o]) => o?.["x-access"]).map(([method, o]) => ({
        method, path, id: o.operationId, tag: o.tags?.[0] ?? "default", summary: o.summary ?? "", access: o["x-access"],
        text: [method, path, o.operationId, o.summary, o["x-access"], ...(o.tags ?? [])].join(" ").toLowerCase(),
      })));
    query.value = "";
    search();
    byID("docs-search-dialog").showModal();
    query.focus();
  };

  // ---- Extensions of Swagger UI.

  const plugin = (system) => {
    const { createElement: h, Fragment, useEffect, useRef, useState } = system.React;
    const operation = (path, method) => system.specSelectors.specJson().getIn(["paths", path, method]);
    const useChanges = () => {
      const [, redraw] = useState(0);
      useEffect(() => {
        const listen = () => redraw((n) => n + 1);
        listeners.add(listen);
        return () => listeners.delete(listen);
      }, []);
    };

    // The requirements of an operation, in its summary.
    const Access = ({ path, method }) => {
      useChanges();
      const shown = operation(path, method);
      const access = shown?.get("x-access");
      if (!access) return null;
      const lacking = stored.size && !allows(shown.get("security")?.toJS());
      return h("span", { className: `docs-access docs-access-${access.split(/[^a-z]/)[0]}${lacking ? " docs-lacking" : ""}`, title: lacking ? "Your token lacks this" : "What a request needs" }, access);
    };

    const Copy = ({ text }) => {
      const [message, setMessage] = useState("Copy");
      const copy = () => navigator.clipboard.writeText(text).then(() => setMessage("Copied"), () => setMessage("Select and copy it by hand"));
      useEffect(() => setMessage("Copy"), [text]);
      return h("button", { type: "button", className: "docs-copy", onClick: copy }, message);
    };

    const Part = ({ title, text }) => h("figure", null,
      h("figcaption", null, title, h(Copy, { text })),
      h("pre", { tabIndex: 0 }, h("code", null, text)));

    // Example programs of an operation, fetched when it is opened.
    const Snippets = ({ path, method }) => {
      const [all, have] = useState(null);
      const [chosen, choose] = useState(language);
      const id = operation(path, method)?.get("operationId");
      useEffect(() => {
        fetch("snippets.json?" + new URLSearchParams({ operation: id })).then((answer) => (answer.ok ? answer.json() : null)).then(have, () => have(null));
      }, [id]);
      const snippet = all?.operations[id]?.[chosen];
      const known = all?.languages.find((one) => one.id === chosen);
      if (!snippet || !known) return null;
      return h("section", { className: "docs-snippets" },
        h("div", { className: "opblock-section-header" }, h("h4", null, "Call it from a program")),
        h("div", { className: "docs-languages", role: "group", "aria-label": "Language" }, all.languages.map((one) =>
          h("button", { key: one.id, type: "button", "aria-pressed": one.id === chosen, onClick: () => choose(language = one.id) }, one.name))),
        h("p", { className: "docs-how" },
          "Save ", snippet.token ? "both parts, one after the other," : "it", " as ", h("code", null, known.file), ". ",
          known.build && "Build: ", known.build && h("code", null, known.build), known.build && ". ",
          "Run: ", h("code", null, known.run), ".",
          known.executed ? "" : " Our tests do not run " + known.name + "."),
        snippet.token && h(Part, { title: "Get a token", text: snippet.token }),
        h(Part, { title: snippet.token ? "Call" : "Call (no token is needed)", text: snippet.call }));
    };

    // Values of earlier responses for a parameter, as buttons.
    const Suggestions = ({ name, onChange }) => {
      useChanges();
      const values = name === "Idempotency-Key" ? ["New random key"] : answers.get(name.toLowerCase()) ?? [];
      if (!values.length) return null;
      return h("div", { className: "docs-taken", role: "group", "aria-label": `Values for ${name}` }, values.map((value) =>
        h("button", { key: value, type: "button", onClick: () => onChange(name === "Idempotency-Key" ? crypto.randomUUID?.() ?? random() : value) },
          name === "Idempotency-Key" ? value : `Use ${value}`)));
    };

    // An explanation of errors that the response itself does not explain.
    const Explanation = ({ response }) => {
      const [message, setMessage] = useState("");
      const status = response.get("status");
      const url = response.get("url") || system.specSelectors.servers?.().first()?.get("url") || "/";
      useEffect(() => {
        setMessage("");
        const old = [...stored.values()].find(expired);
        if (status === 401 && old) setMessage(`Your token expired at ${until(old.expires)}. Authorize again.`);
        else if (!status || response.get("error") && !response.get("headers")) unreachable(url, "The server").then(setMessage);
      }, [response]);
      return message && h("p", { className: "docs-why", role: "alert" }, message);
    };

    return {
      statePlugins: {
        spec: {
          wrapActions: {
            // Swagger UI would parse it as YAML, which takes several times as long.
            parseToJson: (_, { specActions }) => (text) => specActions.updateJsonSpec(JSON.parse(text)),
            executeRequest: (original) => (request) => {
              executing = operation(request.pathName, request.method)?.get("security")?.toJS();
              return original(request);
            },
          },
        },
      },
      wrapComponents: {
        // The page has its own dialog.
        authorizeBtn: () => () => null,
        authorizeOperationBtn: () => () => null,

        // The original is a link inside a button, which keyboards cannot reach; opening sets the
        // address.
        DeepLink: () => ({ text }) => h("span", null, text),

        OperationSummaryPath: (Original) => (props) => h(Fragment, null,
          h(Original, props),
          h(Access, { path: props.operationProps.get("path"), method: props.operationProps.get("method") })),

        responses: (Original) => (props) => h(Fragment, null,
          h(Original, props),
          h(Snippets, { path: props.path, method: props.method })),

        // Scrolls the response into view.
        liveResponse: (Original) => (props) => {
          const here = useRef(null);
          useEffect(() => { here.current?.scrollIntoView({ block: "nearest" }); }, [props.response]);
          return h("div", { ref: here, className: "docs-answer" }, h(Explanation, { response: props.response }), h(Original, props));
        },

        JsonSchemaForm: (Original) => (props) => h(Fragment, null,
          h(Original, props),
          !props.disabled && props.description && h(Suggestions, { name: props.description, onChange: props.onChange })),
      },
    };
  };

  // remember stores ids, entity tags and cursors of a response by the names of the parameters that
  // accept them.
  const remember = (response) => {
    const keep = (name, value) => {
      if (typeof value !== "string" && typeof value !== "number" || value === "" || String(value).length > 100) return;
      const key = name.toLowerCase();
      answers.set(key, [...new Set([String(value), ...(answers.get(key) ?? [])])].slice(0, 3));
    };
    const header = (name) => response.headers?.[name] ?? response.headers?.get?.(name);
    if (header("etag")) for (const name of ["If-Match", "If-None-Match"]) keep(name, header("etag"));
    const visit = (value, depth) => {
      if (Array.isArray(value)) value.slice(0, 3).reverse().forEach((item) => visit(item, depth + 1));
      else if (value && typeof value === "object") {
        for (const [name, inner] of Object.entries(value)) {
          if (typeof inner === "object") visit(inner, depth + 1);
          else if (/^id$|_id$|Id$/.test(name)) keep(name, inner);
          else if (name === "next") keep("cursor", inner);
        }
      }
      return depth;
    };
    if (response.ok) visit(response.body ?? response.obj, 0);
    changed();
  };

  const ui = SwaggerUIBundle({
    domNode: root,
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [plugin],
    layout: "BaseLayout",
    deepLinking: true,
    validatorUrl: null,
    queryConfigEnabled: false,
    persistAuthorization: false,
    displayRequestDuration: true,
    requestInterceptor: (request) => {
      request.credentials = "omit"; // no password dialog for a 401
      apply(request, choose(executing));
      return request;
    },
    responseInterceptor: (response) => {
      remember(response);
      return response;
    },
  });

  // index.html preloads the document.
  const { specActions } = ui.getSystem();
  const address = new URL("openapi.json", location.href).href;
  specActions.updateUrl(address);
  specActions.updateLoadingStatus("loading");
  fetch(address).then((response) => (response.ok ? response.text() : Promise.reject(new Error(`status ${response.status}`)))).then((text) => {
    specActions.updateLoadingStatus("success");
    specActions.updateSpec(text);
  }).catch(({ message }) => {
    specActions.updateLoadingStatus("failed");
    root.prepend(element("p", { className: "docs-note docs-unknown", role: "alert", textContent: `The document cannot be loaded: ${message}. Reload the page to try again.` }));
  });

  // ---- Accessibility and colours.

  // Swagger UI leaves some fields without labels, and scrollable regions without keyboard access.
  const labelFields = () => {
    root.querySelectorAll("select:not([aria-label]), textarea:not([aria-label]), input:not([aria-label]):not([type=hidden])").forEach((field) => {
      const parameter = field.closest("tr[data-param-name]")?.dataset.paramName;
      field.setAttribute("aria-label", parameter ?? (field.matches(".examples-select-element") ? "Example" : field.matches(".body-param__text") ? "Request body" : field.title || "Media type"));
    });
    root.querySelectorAll("pre:not([tabindex])").forEach((region) => { region.tabIndex = 0; });
  };
  let frame = 0; // the pending animation frame
  new MutationObserver(() => { frame ||= requestAnimationFrame(() => { frame = 0; labelFields(); }); }).observe(root, { childList: true, subtree: true });

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const applyColorScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", applyColorScheme);
  applyColorScheme();

  buildForm();
  listeners.add(showStored);
  form.addEventListener("submit", submit);
  form.elements.scheme.addEventListener("change", showWay);
  form.elements.for.addEventListener("change", showWay);
  byID("docs-ways").addEventListener("change", showWay);
  form.elements.find.addEventListener("input", filterScopes);
  byID("docs-authorize").addEventListener("click", openDialog);
  document.querySelectorAll(".docs-close").forEach((button) => button.addEventListener("click", () => button.closest("dialog").close()));
  byID("docs-mine").addEventListener("click", ({ currentTarget: button }) => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    root.classList.toggle("docs-only-mine", on);
    if (on && !stored.size) openDialog();
  });
  byID("docs-search").addEventListener("click", openSearch);
  query.addEventListener("input", search);
  query.addEventListener("keypress", (event) => { // later events of the key could activate the focused element
    if (event.key !== "Enter") return;
    event.preventDefault();
    byID("docs-found").querySelector("button")?.click();
  });
  document.addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (!document.querySelector("dialog[open]")) openSearch();
    }
  });
})();
