// Swagger UI, and what it lacks: what each operation needs, how to call it in ten languages, and tokens for an audience.
"use strict";

(() => {
  const root = document.getElementById("docs");
  const { schemes } = JSON.parse(root.dataset.settings);
  const snippets = fetch("snippets.json").then((answer) => answer.json()).catch(() => null); // null: the page goes without
  let language = "curl"; // that was chosen last

  const plugin = (system) => {
    const { createElement: h, useEffect, useState } = system.React;
    const operation = (path, method) => system.specSelectors.specJson().getIn(["paths", path, method]);

    // What an operation needs, in its summary.
    const Access = ({ path, method }) => {
      const access = operation(path, method)?.get("x-access");
      if (!access) return null;
      return h("span", { className: "docs-access docs-access-" + access.split(/[^a-z]/)[0], title: "What a request needs" }, access);
    };

    const Copy = ({ text }) => {
      const [said, say] = useState("Copy");
      const copy = () => navigator.clipboard.writeText(text).then(() => say("Copied"), () => say("Select and copy it by hand"));
      useEffect(() => say("Copy"), [text]);
      return h("button", { type: "button", className: "docs-copy", onClick: copy }, said);
    };

    const Part = ({ title, text }) => h("figure", null,
      h("figcaption", null, title, h(Copy, { text })),
      h("pre", { tabIndex: 0 }, h("code", null, text)));

    // How to call an operation, in the language that was chosen last.
    const Snippets = ({ path, method }) => {
      const [all, have] = useState(null);
      const [chosen, choose] = useState(language);
      useEffect(() => { snippets.then(have); }, []);
      const inLanguages = all?.operations[operation(path, method)?.get("operationId")];
      const known = all?.languages.find(({ id }) => id === chosen);
      if (!inLanguages || !known) return null;
      const snippet = inLanguages[chosen];
      return h("section", { className: "docs-snippets" },
        h("div", { className: "opblock-section-header" }, h("h4", null, "Call it from a program")),
        h("div", { className: "docs-languages", role: "group", "aria-label": "Language" }, all.languages.map(({ id, name }) =>
          h("button", { key: id, type: "button", "aria-pressed": id === chosen, onClick: () => choose(language = id) }, name))),
        h("p", { className: "docs-how" },
          "Save ", snippet.token ? "both parts, one after the other," : "it", " as ", h("code", null, known.file), ". ",
          known.build && "Build: ", known.build && h("code", null, known.build), known.build && ". ",
          "Run: ", h("code", null, known.run), ".",
          known.executed ? "" : " It is shown only: our tests do not run " + known.name + "."),
        snippet.token && h(Part, { title: "Get a token", text: snippet.token }),
        h(Part, { title: snippet.token ? "Call" : "Call (no token is needed)", text: snippet.call }));
    };

    const Unfocused = ({ autoFocus, ...props }) => h(system.getComponent("Input"), props);

    return {
      wrapComponents: {
        // Where a token is pasted comes last in the dialog, and shall not draw the focus, and the view, away from the rest.
        HttpAuth: (Original) => (props) => h(Original, {
          ...props,
          getComponent: (name, ...more) => (name === "Input" ? Unfocused : props.getComponent(name, ...more)),
        }),

        OperationSummaryPath: (Original) => (props) => h(system.React.Fragment, null,
          h(Original, props),
          h(Access, { path: props.operationProps.get("path"), method: props.operationProps.get("method") })),

        responses: (Original) => (props) => h(system.React.Fragment, null,
          h(Snippets, { path: props.path, method: props.method }),
          h(Original, props)),

        // Swagger UI has one prefill, and takes a token for one of every flow of its scheme. Here each flow has its own
        // client, and says whether it is the one that the token is from; the last to get a token is.
        oauth2: (Original) => (props) => {
          const { name, schema, authSelectors } = props;
          const flow = schema.get("flow");
          const own = (authorized) => authorized.filter((auth) => !auth.get("schema")?.get("flow") || auth.getIn(["schema", "flow"]) === flow);
          const client = schemes[name]?.clients?.[flow];
          const scopes = client ? [...(schema.get("allowedScopes") || schema.get("scopes")).keys()] : [];
          return h(Original, {
            ...props,
            authorized: props.authorized && own(props.authorized),
            authSelectors: {
              ...authSelectors,
              authorized: () => own(authSelectors.authorized()),
              getConfigs: () => ({ ...authSelectors.getConfigs(), clientId: client?.id, clientSecret: client?.secret, scopes }),
            },
          });
        },
      },
      statePlugins: {
        auth: {
          // What gets a token comes before what takes one that is pasted; an application's first, for it is one click.
          wrapSelectors: {
            definitionsToAuthorize: (original) => (...args) => original(...args)?.sortBy((definition) =>
              ["clientCredentials", "authorizationCode", undefined].indexOf(definition.first().get("flow"))),
          },
          wrapActions: {
            // A token is asked for an audience, which belongs into the form: a query ends up in logs. So does a client's
            // secret: issuers differ in how they read it from a header (RFC 6749 §2.3.1), and in whether they let other
            // origins send one. A public client has none, which is not an empty one.
            authorizeRequest: (original) => ({ body, headers, ...request }) => {
              const { name, clientId, clientSecret } = request.auth;
              const form = new URLSearchParams(body);
              form.set("client_id", clientId);
              if (clientSecret) form.set("client_secret", clientSecret);
              else form.delete("client_secret");
              if (schemes[name]?.audience) form.set("audience", schemes[name].audience);
              return original({ ...request, body: form.toString() });
            },
            // The same for the person's part, with a state that nobody can guess (RFC 6749 §10.12).
            authPopup: (original) => (address, asked) => {
              const url = new URL(address);
              const { audience, issuer } = schemes[asked.auth.name] ?? {};
              const state = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
              url.searchParams.set("state", state);
              if (audience) url.searchParams.set("audience", audience);
              return original(url.href, { ...asked, state, issuer });
            },
          },
        },
      },
    };
  };

  const ui = SwaggerUIBundle({
    url: "openapi.json",
    domNode: root,
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [plugin],
    layout: "BaseLayout",
    deepLinking: true,
    validatorUrl: null,
    queryConfigEnabled: false,
    persistAuthorization: false,
    displayRequestDuration: true,
    oauth2RedirectUrl: new URL("oauth2-redirect.html", location.href).href,
    requestInterceptor: (request) => {
      delete request.headers["X-Requested-With"]; // of token requests; not one of the headers that issuers let other origins send
      return request;
    },
  });
  ui.initOAuth({ usePkceWithAuthorizationCodeGrant: true });
})();
