// What the two profiles ask of artillery beyond its own steps. processor.go has the same functions for the Go command.

// A counter that was never counted fails every check that names it, so each virtual user begins it.
export function begin(context, events, done) {
  events.emit('counter', 'stale_reads', 0);
  return done();
}

// To artillery a 503 is an answer like any other.
export function failOnStatus(request, response, context, events, done) {
  return done(response.statusCode < 400 ? undefined : new Error(`HTTP ${response.statusCode} on ${request.name}`));
}

// What the user has written must be there, in that revision or in a later one of somebody else's.
export function countStale(request, response, context, events, done) {
  const { id, revision } = context.vars;
  const lead = parsed(response);
  if (response.statusCode === 404 || (response.statusCode === 200 && !(lead.id === id && lead.revision >= revision))) {
    events.emit('counter', 'stale_reads', 1);
  }
  return done();
}

export function countInstance(request, response, context, events, done) {
  const { instance } = parsed(response);
  if (instance) {
    events.emit('counter', `instance.${instance}`, 1);
  }
  return done();
}

function parsed(response) {
  try {
    return JSON.parse(response.body);
  } catch {
    return {};
  }
}
