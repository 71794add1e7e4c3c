package replicasafe

import "regexp"

// comment accepts one finding, in a file of SQL or of Go.
var comment = regexp.MustCompile(`(?m)^\s*(?:--|//) replica-safe: (\S+) (.+?): (\S.*)$`)

// accept notes the reasons that a migration's text gives, and finds those that nothing needs.
func accept(migration, text string, findings []Finding) []Finding {
	for _, m := range comment.FindAllStringSubmatch(text, -1) {
		used := false
		for i, f := range findings {
			if f.Rule.Name == m[1] && f.Object == m[2] && !used {
				findings[i].Accepted, used = m[3], true
			}
		}
		if !used {
			findings = append(findings, Finding{Migration: migration, Rule: ruleUnused, Object: m[1] + " " + m[2]})
		}
	}
	return findings
}
