"""Sources of talk: authored here, public corpora, a teacher's dialogues, a team's logs."""
