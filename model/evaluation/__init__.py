"""How good captions are.

Tokens     ptb_tokenizer, by ptb_rules, of ptb_characters: those that published scores are made of
Metrics    bleu, rouge, cider over the n-grams of grams; caption_scores: all of them; jar_metrics: METEOR, SPICE
Intervals  bootstrap
Questions  vqa_files, vqa_accuracy: VQAv2's; choices: closed-ended answers, by several orders of the examples
Encoders   encoder_scores by ranks, with class_vectors, as encoder_recipe says: recall and zero-shot classification
"""
