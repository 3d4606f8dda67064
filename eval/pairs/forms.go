package main

import (
	"fmt"
	"strings"
)

// form is a filled template: the same wording around fields that change. {name}
// stands for a field, [n] for the n-th passage of real text, which makes the
// form as long as forms with their terms and instructions are.
type form struct {
	text   string
	fields map[string][2]string // reference's and target's value
}

var forms = []form{
	{`You are a support agent. Follow the handbook below to the letter.

[0]

[1]

Ticket: {ticket}
Opened: {date}
Customer: {name}
Product: {product}

The customer writes: {complaint}

Write the first two sentences of the reply to the customer.`,
		map[string][2]string{
			"ticket": {"#48213", "#50977"}, "date": {"3 March 2025", "19 June 2025"}, "name": {"Hannah Fischer", "Miguel Santos"},
			"product":   {"backup tool 4.2", "mirror service 5.0"},
			"complaint": {"my package was removed from the archive and nobody told me why.", "the upload queue has ignored my files since last night, what should I do?"},
		}},
	{`REPORT OF INSPECTION

Report number: {number}
Site: {site}
Inspector: {inspector}
Date of visit: {date}

1. Scope

[0]

2. Rules applied

[1]

3. Result

The inspection of {site} found {found}. The next visit is due on {next}.

Question: What did the inspection find?`,
		map[string][2]string{
			"number": {"IR-2025-0187", "IR-2025-0342"}, "site": {"Hamburg data centre", "Lyon data centre"},
			"inspector": {"R. Castellanos", "J. Whitfield"}, "date": {"11 February 2025", "26 May 2025"},
			"found": {"two minor defects in the labelling of spare parts", "one serious defect in the cooling of rack seven"},
			"next":  {"11 August 2025", "26 November 2025"},
		}},
	{`Dear {name},

thank you for your application for {role}. Please find below the rules that every member agrees to.

[0]

Your mentor will be {mentor}. The work starts on {date}.

[1]

Please answer until {until}. Your reference is {reference}.

Kind regards,
{signed}

Question: Who is the mentor of the applicant, and when does the work start?`,
		map[string][2]string{
			"name": {"Ms. Petrova", "Mr. Yamamoto"}, "role": {"the release team", "the security team"}, "mentor": {"Oluwaseun Adeyemi", "Claire Dubois"},
			"date": {"1 April 2025", "15 September 2025"}, "until": {"20 March 2025", "31 August 2025"}, "reference": {"A-5512", "A-6094"},
			"signed": {"Anna Kowalska", "Henrik Sørensen"},
		}},
	{`MINUTES OF THE MEETING

Date: {date}
Place: {place}
Chair: {chair}
Present: {present} members

The chair read the following text aloud:

[0]

Decision: {decision}

Then the second text was read:

[1]

Votes in favour: {yes}; against: {no}.

Question: What was decided?`,
		map[string][2]string{
			"date": {"7 January 2025", "4 February 2025"}, "place": {"Room 12, Vienna", "Room 3, Prague"}, "chair": {"Dr. Sato", "Dr. Moreau"},
			"present": {"17", "23"}, "decision": {"the text is adopted without changes.", "the text is sent back to its authors."},
			"yes": {"15", "9"}, "no": {"2", "14"},
		}},
}

// fill puts the values of one side (0 reference, 1 target) and the passages in.
func (f *form) fill(side int, passages []string) string {
	s := f.text
	for name, value := range f.fields {
		s = strings.ReplaceAll(s, "{"+name+"}", value[side])
	}
	for i, p := range passages {
		s = strings.Replace(s, fmt.Sprintf("[%d]", i), p, 1)
	}
	return s
}

// template: one form filled twice.
func (m *maker) template() ([]Pair, error) {
	var pairs []Pair
	for i := range perGroup {
		f := &forms[i%len(forms)]
		half := (length(i) - 150) / 2
		passages := []string{join(m.prose(i+4, half)), join(m.prose(i+7, half))}
		pairs = append(pairs, Pair{ID: m.id("template", i), Group: "template",
			Reference: f.fill(0, passages), Target: f.fill(1, passages)})
	}
	return pairs, nil
}
